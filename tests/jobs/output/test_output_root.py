import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.output_root import check_output_within, check_path_within


def test_an_output_may_be_the_root_or_below_it(tmp_path):
    assert check_path_within(tmp_path / "a/new", tmp_path) == (tmp_path / "a/new").resolve()
    check_output_within(Output(tmp_path), tmp_path)


def test_an_output_outside_the_root_is_refused_through_dots_and_links_too(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "rooter", root / "../x", root / "link/x", tmp_path):
        with pytest.raises(OutputError, match="IMAGEMILL_OUTPUT_ROOT") as caught:
            check_path_within(path, root)
        assert str(path) in str(caught.value)
        assert str(root) in str(caught.value)
        # Where a path leads is told only if it is not what it says.
        assert ("(really " in str(caught.value)) == (path.resolve() != path)


@pytest.mark.parametrize("inner", ["", "spool", "inputs", "jobs", "quarantine", "worker.log"])
def test_a_link_inside_the_output_that_leads_out_of_the_root_is_refused(tmp_path, inner):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = root / "out" / ".imagemill" / inner
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="outside IMAGEMILL_OUTPUT_ROOT"):
        check_output_within(Output(root / "out"), root)


def test_a_shards_spool_that_leads_out_of_the_root_is_refused(tmp_path):
    output = Output(tmp_path / "root" / "out")
    output.prepare()
    (tmp_path / "elsewhere").mkdir()
    (output.spool / "00003").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"00003.*outside IMAGEMILL_OUTPUT_ROOT"):
        check_output_within(output, tmp_path / "root")
    (output.spool / "00003").unlink()
    (output.spool / "00003").mkdir()
    check_output_within(output, tmp_path / "root")


@pytest.mark.parametrize("name", ["a\0b", "half a pair \ud800", "loop/x"])
def test_what_cannot_be_a_path_is_refused(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="cannot be a path"):
        check_path_within(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["-rf", "a\nb", "🦊 *?[x]", "~", "%2e%2e", "x" * 255])
def test_odd_names_are_names_like_any_other(tmp_path, name):
    output = Output(tmp_path / "root" / name)
    check_output_within(output, tmp_path / "root")
    output.prepare()
    assert [folder.name for folder in (tmp_path / "root").iterdir()] == [name]


@pytest.mark.parametrize("location", ["s3://pictures/sets", "s3://pictures/sets/foxes"])
def test_a_place_in_a_bucket_may_be_the_root_or_below_it(location):
    check_output_within(Output.at(location), "s3://pictures/sets")


@pytest.mark.parametrize(
    ("location", "root"),
    [
        ("s3://pictures/sets-2", "s3://pictures/sets"),
        ("gs://pictures/sets", "s3://pictures/sets"),
        ("s3://pictures/sets", "/out"),
        ("/out", "s3://pictures/sets"),
    ],
)
def test_a_place_in_a_bucket_and_a_folder_are_apart(location, root):
    with pytest.raises(OutputError, match=f"{location} lies outside IMAGEMILL_OUTPUT_ROOT = {root}: "):
        check_output_within(Output.at(location), root)


def test_a_root_that_is_no_place_in_a_bucket_is_named():
    with pytest.raises(OutputError, match=r"IMAGEMILL_OUTPUT_ROOT = ftp://pictures: begins with none of "):
        check_output_within(Output.at("s3://pictures/sets"), "ftp://pictures")
