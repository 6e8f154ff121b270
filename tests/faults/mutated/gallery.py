"""The checks of the pages of pictures, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

OUTPUTS_PY = "producer/serve/outputs.py"
FILES_PY = "producer/serve/gallery/picture_files.py"
FILTER_PY = "producer/serve/gallery/filter.py"
KNOWN_PY = "producer/serve/gallery/known_columns.py"
OUTPUT_PY = "producer/serve/gallery/gallery_output.py"
PIECE_HTML = "producer/serve/templates/gallery_piece.html"
PAGES_PY = "producer/serve/gallery/gallery_pages.py"
ADDRESS_PY = "producer/serve/gallery/address.py"
PICTURE_PAGE_PY = "producer/serve/gallery/picture_page.py"
GRID_PAGE_PY = "producer/serve/gallery/grid_page.py"
RECORDS_PY = "producer/serve/gallery/record_lines.py"
FOLDER_INDEX_PY = "producer/serve/gallery/folder_index.py"
INDICES_PY = "producer/serve/gallery/shard_indices.py"
TAR_INDEX_PY = "producer/serve/gallery/tar_index.py"
TABLE_PY = "producer/serve/gallery/table_lines.py"
SHARD_LIST_PY = "producer/serve/gallery/shard_list.py"
SWEEP_PY = "producer/serve/gallery/sweep.py"
THUMBNAILS_PY = "producer/serve/gallery/thumbnails.py"

IN_PAGES = "tests/producer/serve/gallery/test_gallery_output.py::"
FILTERS = "tests/producer/serve/gallery/test_filter.py::"
SHOWN = "tests/producer/serve/gallery/test_gallery_pages.py::"
IN_PICTURE = "tests/producer/serve/gallery/test_picture_page.py::"
IN_FILES = "tests/producer/serve/gallery/test_picture_files.py::"
IN_GRID = "tests/producer/serve/gallery/test_grid_page.py::"
IN_FOLDER = "tests/producer/serve/gallery/test_folder_index.py::"
SILENT = "tests/producer/serve/gallery/test_silent_store.py::"
SMALL = "tests/producer/serve/gallery/test_thumbnails.py::"

CHECKS = [
    Mutation("gallery: pixels are bounded before they are decoded", "any number", THUMBNAILS_PY,
        "if width * height > _MOST_PIXELS:", "if False:",
        SMALL + "test_a_picture_of_too_many_pixels_is_not_decoded"),
    Mutation("gallery: formats are those that imagemill writes", "any", THUMBNAILS_PY,
        "picture = Image.open(io.BytesIO(data), formats=_FORMATS)", "picture = Image.open(io.BytesIO(data))",
        SMALL + "test_what_cannot_be_shown_becomes_a_placeholder[GIF]"),
    Mutation("gallery: Pillow's warnings are not printed", "are", THUMBNAILS_PY,
        'warnings.filterwarnings("ignore", module=r"PIL\\.")\n', "",
        SMALL + "test_an_odd_picture_is_shown_and_nothing_stands_on_standard_error"),
    Mutation("gallery: a placeholder is not kept by browsers", "a week long", FILES_PY,
        "kept = is_it and not made.damaged", "kept = is_it",
        IN_FILES + "test_a_page_in_a_pictures_place_is_not_sent_though_its_record_tells_of_it"),
    Mutation("gallery: a thumbnail is the one that its address says", "any", FILES_PY,
        "kept = is_it and not made.damaged", "kept = not made.damaged",
        IN_FILES + "test_a_thumbnail_is_kept_only_where_the_picture_lies_that_its_address_says[files]"),
    Mutation("gallery: a file is a picture or a placeholder", "sent as it is", FILES_PY,
        "if kind not in _SUFFIXES:", "if False:",
        IN_FILES + "test_a_page_in_a_pictures_place_is_not_sent_though_its_record_tells_of_it"),
    Mutation("gallery: a picture is the one of its record", "any", OUTPUT_PY,
        'if hashlib.sha256(data).hexdigest() != record.get("sha256"):', "if False:",
        IN_FILES + "test_only_pictures_that_were_rendered_here_are_shown"),
    Mutation("gallery: a place is two numbers in bounds", "of any size", ADDRESS_PY,
        "and len(text) <= 12", "",
        SHOWN + "test_what_is_not_there_is_not_found[many digits]"),
    Mutation("gallery: a search gets on however late it is", "stays", RECORDS_PY,
        "late = number > 0 and number % _STEP == 0 and wanted.late()", "late = wanted.late()",
        FILTERS + "test_a_search_stops_when_its_time_is_over_and_goes_on_where_it_was[files]"),
    Mutation("gallery: a search backwards takes its time, too", "any", RECORDS_PY,
        "late = looked > 0 and looked % _STEP == 0 and wanted.late()", "late = False",
        FILTERS + "test_a_large_shard_of_records_is_looked_through_backwards_in_pieces[0.0-wanted0]"),
    Mutation("gallery: a column that no image has is refused", "finds nothing", KNOWN_PY,
        'raise WrongFilter(f"column = {name}: no image here has it{like}; there are {there}")', 'return ""',
        FILTERS + "test_a_column_that_no_image_has_is_refused_with_those_that_there_are[files]"),
    Mutation("gallery: every job's columns are known", "the ends' alone", KNOWN_PY,
        "        if name in named:\n", "        if False:\n",
        FILTERS + "test_a_column_of_a_job_in_the_middle_is_known_by_its_manifest"),
    Mutation("gallery: a value that a setting cannot have is refused", "finds nothing", FILTER_PY,
        "if meant is None or not setting.is_right(meant):", "if False:",
        FILTERS + "test_what_is_no_condition_is_refused[query12-precision = fp33: must be auto, bf16]"),
    Mutation("gallery: an output that was removed is told", "is no output", OUTPUT_PY,
        "if not output.in_bucket and not output.path.is_dir():", "if False:",
        SHOWN + "test_an_output_that_was_removed_does_not_look_like_one_that_has_not_begun[files]"),
    Mutation("gallery: a folder that is no output is told", "has no pictures yet", OUTPUT_PY,
        "if begun or self.shards.following(0) is not None:", "if True:",
        SHOWN + "test_a_folder_that_is_no_output_is_not_called_one_without_pictures"),
    Mutation("gallery: a whole picture that a browser has is not sent again", "is", FILES_PY,
        "        if _held(request, tag):\n            return Response(status_code=304, headers=headers)\n",
        "",
        IN_FILES + "test_a_browser_that_has_a_picture_is_sent_no_byte_of_it_again[files]"),
    Mutation("gallery: a grid says what it passed over", "nothing", SWEEP_PY,
        "        if damage.told:\n", "        if False:\n",
        IN_GRID + "test_a_damaged_shard_hides_no_other_in_a_grid"),
    Mutation("gallery: a grid reads few damaged shards", "all", SWEEP_PY,
        "len(troubles) == _MOST_TROUBLES", "False",
        SHOWN + "test_an_output_of_damaged_shards_alone_is_not_called_one_without_pictures"),
    Mutation("gallery: a grid has a bounded number of pictures", "all that are read in time", SWEEP_PY,
        "if len(records) == MOST or (", "if (",
        IN_GRID + "test_a_grid_is_bounded_however_much_time_there_is[1250-next0]"),
    Mutation("gallery: a listing of shards is kept", "never", SHARD_LIST_PY,
        "if self._listed is None or began >= self._until:", "if True:",
        "tests/producer/serve/gallery/test_shard_list.py::"
        "test_a_listing_is_kept_twenty_times_as_long_as_it_took_and_two_seconds_at_least[1.0-20.0]"),
    Mutation("gallery: a condition that is unknown is refused", "passed over", FILTER_PY,
        "if unknown is not None:", "if False:",
        FILTERS + "test_what_is_no_condition_is_refused[query7-sheduler: is no condition; there are text, "
        "scheduler, seed, flagged, failed]"),
    Mutation("gallery: shards that were overtaken come", "do not", PAGES_PY,
        'remembered = {"late": written(waiting)} if waiting and live else {}', "remembered = {}",
        SHOWN + "test_shards_that_others_overtook_appear_behind_them_once"),
    Mutation("gallery: a job's last shards come after its end", "do not", OUTPUT_PY,
        "self.shards.listed_among((place.shard for place in places), afresh=afresh)",
        "self.shards.listed_among((place.shard for place in places), afresh=False)",
        SHOWN + "test_the_last_pictures_of_a_job_come_after_its_end"),
    Mutation("gallery: an axis that there is none is refused", "nothing", GRID_PAGE_PY,
        "        if name is not None and name not in sweep.axes:",
        "        if False:",
        IN_GRID + "test_a_grid_along_what_is_no_axis_is_told[x=guidance-x = guidance: these pictures do not "
        "differ in it; they differ in guidance_scale]"),
    Mutation("gallery: a condition that is given twice is refused", "the last counts", ADDRESS_PY,
        "if twice is not None:", "if False:",
        SHOWN + "test_a_condition_that_is_none_is_told"),
    Mutation("gallery: neighbours are those of the filter", "all", PICTURE_PAGE_PY,
        'after=_neighbour(request, output, "after", place.next, taken),',
        'after=_neighbour(request, output, "after", place.next, Filter()),',
        IN_PICTURE + "test_neighbours_are_those_that_the_filter_takes_which_led_to_a_picture[files]"),
    Mutation("gallery: what failed is no picture", "is shown", TABLE_PY,
        "status = FAILED if wanted.filter.failed else SUCCESS",
        "status = SUCCESS if wanted.filter.failed else FAILED",
        FILTERS + "test_every_layout_finds_the_same[webdataset]"),
    Mutation("gallery: a table that cannot be read is not asked", "ends the page", TABLE_PY,
        "    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):\n",
        "    except ZeroDivisionError:\n",
        IN_PAGES + "test_a_tar_without_its_parquet_gives_the_same_pages"),
    Mutation("gallery: each output has threads of its own", "all share them", OUTPUTS_PY,
        "        if key not in self._threads:", '        key = ""\n        if key not in self._threads:',
        SILENT + "test_the_pages_of_other_outputs_are_served_meanwhile[pages]"),
    Mutation("gallery: each tar is walked through by itself", "one at a time", INDICES_PY,
        "self._walks.setdefault(key, Lock())", 'self._walks.setdefault("", Lock())',
        SILENT + "test_a_tar_is_indexed_while_another_one_is_waited_for"),
    Mutation("gallery: a damaged line hides no other", "those after it", FOLDER_INDEX_PY,
        "                    gaps.note(error)\n                else:",
        "                    gaps.note(error)\n                    break\n                else:",
        "tests/producer/serve/gallery/test_damaged_shards.py::test_many_bad_lines_are_one_message"),
    Mutation("gallery: a large folder is walked through once", "for each picture", INDICES_PY,
        "                if found.lasting:\n", "                if False:\n",
        IN_FOLDER + "test_a_large_folder_is_walked_through_once_and_then_lines_are_read_where_they_lie"
        "[pictures-3]"),
    Mutation("gallery: a folder that was changed is walked through again", "not", INDICES_PY,
        "return state.st_ino, state.st_mtime_ns, state.st_size", "return ()",
        IN_FOLDER + "test_a_folder_that_was_changed_is_read_as_it_is_now"),
    Mutation("gallery: records that are out of order are found", "are not", FOLDER_INDEX_PY,
        "replace(index._in_order(), ", "replace(index, ",
        IN_FOLDER + "test_records_that_are_out_of_order_are_shown_in_order"),
    Mutation("gallery: a tar that is cut off is read up to there", "not at all", TAR_INDEX_PY,
        "            if not tar.committed():\n                raise", "            raise",
        "tests/producer/serve/gallery/test_damaged_shards.py::"
        "test_of_a_tar_that_is_cut_off_what_is_there_is_shown[False]"),
    Mutation("gallery: an output that is back is gone no longer", "for ever", PIECE_HTML,
        "elif shown.was_absent", "elif False",
        "tests/integration/test_pages_in_browser.py::"
        "test_an_open_gallery_says_that_its_output_is_gone_and_goes_on_when_it_is_back"),
]  # fmt: skip
