"""What a submission and a recovery came to, in words."""

from __future__ import annotations

from jobs.wording import counted
from producer.requests.line_count import Lines
from producer.show import as_json_text, print_skipped, say
from producer.submit.recover import Recovered
from producer.submit.submit import Submitted


def print_submitted(submitted: Submitted) -> None:
    """Prints what a submission came to."""
    parts = [f"{submitted.job_id}: {counted(submitted.images, 'image')} to render"]
    if submitted.held:
        parts.append(f"{submitted.held} are already in the output")
    if submitted.duplicates:
        parts.append(
            f"{counted(submitted.duplicates, 'line')} asking for an image that another line also asks for"
        )
    if submitted.skipped:
        parts.append(f"{counted(submitted.skipped, 'row')} skipped")
    if submitted.attached:
        parts.append("it was submitted before and continues")
    say(", ".join(parts))
    if submitted.left_out:
        say(f"{submitted.job_id}: left out: {'; '.join(submitted.left_out)}")
    asked = Lines(
        pictures=submitted.images + submitted.held,
        equal=submitted.equal_lines,
        added=submitted.added_lines,
        reused_ids=submitted.reused_ids,
        first_reused_ids=submitted.first_reused_ids,
    )
    for remark in asked.remarks():
        say(f"{submitted.job_id}: {remark}")
    for told in submitted.told:
        say(f"{submitted.job_id}: {told}")
    for warning in submitted.syntax:
        say(f"{submitted.job_id}: {warning}")
    if submitted.remark:
        say(f"{submitted.job_id}: {submitted.remark}")
    for name, why in submitted.json_columns.items():
        say(f"{submitted.job_id}: column {as_json_text(name, why)}")
    print_skipped(submitted.skipped, submitted.skipped_rows, submitted.skipped_file)


def print_recovered(recovered: Recovered) -> None:
    """Prints the state in which a job was restored."""
    parts = [f"{recovered.job_id}: {counted(recovered.images, 'image')}", f"{recovered.done} done"]
    if recovered.flagged:
        parts[-1] += f" ({recovered.flagged} flagged)"
    parts += [f"{recovered.failed} failed", f"{recovered.left} {'left' if recovered.reason else 'to render'}"]
    if recovered.held:
        verb = "is" if recovered.held == 1 else "are"
        parts.append(f"{recovered.held} {verb} in the output from other jobs")
    if recovered.skipped:
        parts.append(f"{counted(recovered.skipped, 'row')} skipped")
    say(", ".join(parts))
    if recovered.reason:
        say(f"{recovered.job_id} is stopped: {recovered.reason}")
    print_skipped(recovered.skipped, recovered.skipped_rows)
