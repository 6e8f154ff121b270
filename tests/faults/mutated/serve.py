"""The checks of the pages, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

APP_PY = "producer/serve/app.py"
BESIDE_RUN_PY = "producer/serve/beside_run.py"
DOORS_PY = "producer/serve/doors.py"
FAILURES_PY = "producer/serve/failure_list.py"
FIGURES_PY = "producer/serve/figures.py"
LEDGER_WATCH_PY = "producer/serve/ledger_watch.py"
OUTPUTS_PY = "producer/serve/outputs.py"
PAGES_PY = "producer/serve/pages.py"
PAGE_TEXT_PY = "producer/serve/page_text.py"
SIGN_IN_PY = "producer/serve/sign_in.py"
SERVE_PY = "producer/commands/serve.py"
SERVER_PY = "producer/serve/server.py"
LIMITS_PY = "producer/serve/connection_limits.py"

AT_THE_DOOR = "tests/producer/serve/test_doors.py::"
SIGNING_IN = "tests/producer/serve/test_sign_in.py::"
JOB_PAGES = "tests/producer/serve/test_job_pages.py::"
WATCHING = "tests/producer/serve/test_ledger_watch.py::"
SEEING = "tests/producer/serve/test_outputs.py::"
COMMAND = "tests/integration/test_serve_command.py::"
BEHIND_PROXY = "tests/integration/test_pages_behind_proxy.py::"
LIMITED = "tests/producer/serve/test_connection_limits.py::"
FIGURES = "tests/producer/serve/test_figures.py::"

CHECKS = [
    Mutation("serve: names of this machine alone", "any", DOORS_PY,
        "if not self._doors.takes_host(headers):", "if False:",
        AT_THE_DOOR + "test_without_a_token_another_name_that_leads_here_is_refused[strangers.example]"),
    Mutation("serve: nobody without the token", "everybody", DOORS_PY,
        "(self._doors.lets_in(headers) and not tells)", "not tells",
        AT_THE_DOOR + "test_with_a_token_nobody_is_let_in_who_does_not_give_it[/]"),
    Mutation("serve: what is open is named whole", "by its beginning", DOORS_PY,
        "if path == SIGN_IN or", "if path.startswith(SIGN_IN) or",
        AT_THE_DOOR + "test_what_only_begins_like_something_open_is_not_open"),
    Mutation("serve: the token is compared whole", "its beginning", DOORS_PY,
        'hmac.compare_digest(given.encode("utf-8", "replace"), self._token)',
        'self._token.startswith(given.encode("utf-8", "replace"))',
        AT_THE_DOOR + "test_with_a_token_nobody_is_let_in_who_does_not_give_it[/]"),
    Mutation("serve: a policy for every answer", "none", DOORS_PY,
        "headers.setdefault(name, value)", "pass",
        AT_THE_DOOR + "test_every_answer_keeps_a_browser_from_running_loading_or_sending_anything_else[/]"),
    Mutation("serve: the policy is around failures, too", "within", APP_PY,
        "return Guarded(app, site.doors)", "return app",
        AT_THE_DOOR + "test_a_page_that_fails_says_so_without_its_inside"),
    Mutation("serve: strangers' text is escaped", "as it is", PAGES_PY,
        "autoescape=True,", "autoescape=False,",
        JOB_PAGES + "test_strangers_text_is_text"),
    Mutation("serve: messages are escaped", "as they are", PAGE_TEXT_PY,
        'pieces = [mixed(piece) for piece in text.split("`")]',
        'pieces = [Markup(piece) for piece in text.split("`")]',
        JOB_PAGES + "test_strangers_text_is_text"),
    Mutation("serve: a mark turns nothing around", "what comes after it", PAGES_PY,
        "            finalize=page_text.isolated,\n", "",
        "tests/integration/test_pages_in_browser.py::"
        "test_marks_that_turn_a_text_around_turn_nothing_on_the_pages_of_jobs"),
    Mutation("serve: signing in leads to this server alone", "anywhere", SIGN_IN_PY,
        'return there if local and not there.startswith(SIGN_IN) else "/"', "return there",
        SIGNING_IN + "test_signing_in_leads_nowhere_else[//strangers.example]"),
    Mutation("serve: the token leaves the address", "stays", SIGN_IN_PY,
        'token = asked.pop("token")[-1]', 'token = asked["token"][-1]',
        SIGNING_IN + "test_an_address_with_the_token_signs_in_and_loses_it"),
    Mutation("serve: the cookie is no token", "the token", DOORS_PY,
        'return self._digest("pass")', "return (self._token or b\"\").decode()",
        SIGNING_IN + "test_an_address_with_the_token_signs_in_and_loses_it"),
    Mutation("serve: outputs that may be seen", "any path, too", OUTPUTS_PY,
        "        if key in self._named:\n",
        '        if key.startswith("/"):\n            return Output.at(key)\n'
        "        if key in self._named:\n",
        SEEING + "test_the_outputs_of_jobs_and_those_that_were_named_are_found_and_no_other"),
    Mutation("serve: one reading for all visitors", "one each", LEDGER_WATCH_PY,
        "OLDEST = 1.0", "OLDEST = 0.0",
        WATCHING + "test_a_hundred_visitors_and_scrapes_at_once_cost_one_reading"),
    Mutation("serve: a Redis that hangs holds one visitor up", "all", LEDGER_WATCH_PY,
        "blocking=wait", "blocking=True",
        WATCHING + "test_a_redis_that_hangs_keeps_one_visitor_waiting_and_the_others_see_what_is_known"),
    Mutation("serve: figures are of the last second, or there are none", "older ones", LEDGER_WATCH_PY,
        "if snapshot.away is not None:", "if snapshot.overview is None:",
        WATCHING + "test_an_outage_is_told_with_its_beginning_and_what_was_known_stays"),
    Mutation("serve: who looks writes nothing into Redis", "takes old names away", LEDGER_WATCH_PY,
        "seen = self.ask(LedgerView.overview)",
        "self.ask(LedgerView.jobs)\n            seen = self.ask(LedgerView.overview)",
        WATCHING + "test_a_replica_and_a_user_who_may_only_read_can_be_looked_at"),
    Mutation("serve: a request is whole in time", "any time", LIMITS_PY,
        "(h11.IDLE, h11.SEND_BODY)", "()",
        LIMITED + "test_a_request_that_is_never_whole_loses_its_connection"),
    Mutation("serve: the time ends with the request", "with the answer", LIMITS_PY,
        "            self._unwatch()\n        elif", "            pass\n        elif",
        LIMITED + "test_a_whole_request_is_answered_however_long_that_takes"),
    Mutation("serve: a slow client gets all of its answer", "what came in time", LIMITS_PY,
        "SECONDS, self.transport.close)", "SECONDS, self.transport.abort)",
        LIMITED + "test_a_slow_client_gets_all_of_its_answer"),
    Mutation("serve: descriptors are left", "none", LIMITS_PY,
        "if len(self.connections) > MOST:", "if False:",
        LIMITED + "test_there_are_never_more_connections_than_descriptors_allow"),
    Mutation("serve: an answer is taken in time", "any time", SERVER_PY,
        'if hasattr(socket, "TCP_USER_TIMEOUT"):', "if False:",
        LIMITED + "test_a_client_that_does_not_take_its_answer_loses_its_connection"),
    Mutation("serve: who waits for the pages learns that they ended", "does not", SERVER_PY,
        "if self.failure is not None:", "if False:",
        "tests/producer/serve/test_server.py::test_what_ends_the_thread_is_raised_to_who_waits_for_it"),
    Mutation("serve: pages that cannot be built keep no visitor waiting", "they do", SERVER_PY,
        "self._socket.close()  # visitors", "pass  # visitors",
        "tests/producer/serve/test_server.py::"
        "test_a_run_whose_pages_cannot_be_built_says_so_at_once_and_keeps_no_visitor_waiting"),
    Mutation("serve: a run tells a broken page before anybody comes", "to a visitor", BESIDE_RUN_PY,
        "made.pages.compile()", "pass",
        "tests/producer/serve/test_server.py::test_a_run_tells_a_broken_template_before_anybody_comes"),
    Mutation("serve: SIGTERM is no failure", "it is", SERVE_PY,
        "0 if told_to_stop else Interrupted.exit_code", "Interrupted.exit_code",
        COMMAND + "test_it_shows_jobs_and_named_outputs_until_it_is_stopped_quietly[15-0]"),
    Mutation("serve: of many failures few are read", "all", FAILURES_PY,
        "most=_LOOKED_AT", "most=10**9",
        JOB_PAGES + "test_of_many_failures_few_are_read_and_the_same_ones_are_shown_again"),
    Mutation("serve: failures are read once in a while", "at each look", FAILURES_PY,
        "time.monotonic() - known.at >= PAUSE", "True",
        JOB_PAGES + "test_failures_are_read_once_in_a_while_however_often_one_comes"),
    Mutation("serve: a store that gives no answer hides no job", "it does", FAILURES_PY,
        "timeout=PATIENCE", "timeout=None",
        JOB_PAGES + "test_a_job_is_shown_while_the_store_of_its_output_gives_no_answer"),
    Mutation("serve: all scrapes have one thread", "one each", FIGURES_PY,
        ", limiter=at_a_time", "",
        FIGURES + "test_many_scrapes_of_a_redis_that_hangs_keep_no_page_waiting"),
    Mutation("serve: an outage keeps its beginning", "begins at each look", LEDGER_WATCH_PY,
        "since = time.time() if before is None else before.since", "since = time.time()",
        WATCHING + "test_an_outage_is_told_with_its_beginning_and_what_was_known_stays"),
    Mutation("serve: another host needs a token", "none", SERVE_PY,
        "if secret is None and not is_loopback(at.host):", "if False:",
        COMMAND + "test_what_cannot_be_served_is_one_message[options0-error: --host 0\\\\.0\\\\.0\\\\.0: "
        "others could look at everything: .*--token-file]"),
    Mutation("serve: a token cannot be guessed", "of any length", SERVE_PY,
        "len(token) < _SHORTEST", "len(token) < 1",
        COMMAND + "test_what_cannot_be_served_is_one_message[options1-error: --token: must have at least 16 "
        "characters]"),
    Mutation("serve: proxies that were named are believed", "all", SERVER_PY,
        "forwarded_allow_ips=[*self._proxies],", 'forwarded_allow_ips="*",',
        BEHIND_PROXY + "test_only_a_proxy_that_was_named_is_believed[proxies2-False]"),
    Mutation("serve: a proxy is an address or a network", "anything", SERVE_PY,
        "            ip_network(one)\n", "            str(one)\n",
        COMMAND + "test_what_cannot_be_served_is_one_message[options5-error: --forwarded-allow-ips "
        "10\\\\.0\\\\.0\\\\.300: is no address and no network]"),
    Mutation("serve: a redirect names no server", "the one asked for", DOORS_PY,
        'headers["location"] = _here(headers["location"])', "pass",
        AT_THE_DOOR + "test_a_redirect_names_no_server_so_that_it_stays_behind_the_proxy_that_was_asked"
        "[http://127.0.0.1:8484]"),
    Mutation("serve: one question for all who ask for health", "one each", FIGURES_PY,
        "if self._asked is None or self._asked.done():", "if True:",
        FIGURES + "test_many_who_ask_for_health_cost_one_question_to_a_redis_that_never_answers"),
    Mutation("serve: the pages of a run have a token", "none", BESIDE_RUN_PY,
        "made = site_at(url, output, token)", "made = site_at(url, output, None)",
        "tests/integration/test_run_command.py::"
        "test_run_tells_an_address_that_shows_its_job_while_it_lasts_to_those_who_have_it"),
    Mutation("serve: what strangers send is not told on the terminal", "is", SERVER_PY,
        'log_level="error"', 'log_level="warning"',
        "tests/producer/serve/test_server.py::test_what_strangers_send_is_not_told_on_the_terminal"),
    Mutation("serve: a run leaves its port free", "takes it", BESIDE_RUN_PY,
        'listen("127.0.0.1", 0)', 'listen("127.0.0.1", 8484)',
        "tests/producer/serve/test_server.py::test_a_run_leaves_the_port_of_serve_free"),
    Mutation("serve: a wrong token in the form costs time", "none", SIGN_IN_PY,
        "            await asyncio.sleep(_PAUSE)", "            pass",
        SIGNING_IN + "test_a_wrong_token_in_the_form_costs_half_a_second"),
]  # fmt: skip
