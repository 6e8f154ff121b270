"""What was found in the prompt files of a manifest, beside their lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from jobs.output.nested_kinds import ColumnTypes, with_json
from jobs.wording import counted, shortened
from producer.manifest.line import Line
from producer.manifest.picture_files import Noted
from producer.manifest.source_yaml import in_yaml
from producer.manifest.syntax_marks import Marks
from producer.prompt_files.plain import COMMENT


@dataclass(slots=True)
class Noticed:
    """What there is to say about the rows of one file."""

    left_out: Counter[str] = field(default_factory=Counter)
    """What `plain.records` counts."""
    settings_of_columns: dict[str, str] = field(default_factory=dict)
    unguided: int = 0
    lines: int | None = None
    """How many rows a .txt with a prompt a line has; None for any other file."""
    pictures: Noted = field(default_factory=Noted)


@dataclass(slots=True)
class Reading:
    """What one pass over the prompt files of a manifest found; complete when the pass is."""

    sha256: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of every file that was begun, by its path."""
    skipped: int = 0
    """Rows left out because something is wrong with them."""
    skipped_rows: list[str] = field(default_factory=list)
    """The first of those: `FILE:LINE: what`."""
    on_skipped: Callable[[str], None] = field(default=lambda row: None, compare=False)
    """Called with each of them."""
    json_columns: Collection[str] = ()
    """The user's columns that lines are to have as JSON text."""
    columns: ColumnTypes = field(default_factory=ColumnTypes, compare=False)
    """What the user's columns hold, before any is JSON text."""
    comments: int = 0
    """Lines of .txt files that begin with #."""
    dropped_flags: dict[str, int] = field(default_factory=dict)
    """Flags in .txt files that change no picture -> how often they occur."""
    settings_of_columns: dict[str, str] = field(default_factory=dict)
    """Columns that give a setting although the manifest does not name them -> the setting."""
    unguided: int = 0
    """Rows whose own guidance_scale switches guidance off."""
    text_files: int = 0
    """.txt files with a prompt a line."""
    short_files: int = 0
    """Those of them that have one line alone."""
    place: str = field(default="", compare=False)
    """`FILE:LINE` of the row whose line was given last, where rows are templates."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of every LoRA and textual inversion that lines name -> its file's absolute path."""
    remarks: Mapping[str, None] = field(default_factory=dict)
    """What there is to say of those files, each once."""
    pictures: Noted = field(default_factory=Noted)
    """What there is to say of the pictures of lines."""
    swept: Noted = field(default_factory=Noted)
    """The same of those that the sweep names."""
    vain: list[str] = field(default_factory=list)
    """What the manifest gives for all lines that means nothing to any, by its place; known at the end."""
    marks: Marks = field(default_factory=Marks)
    """What in texts, those of the manifest too, looks like another tool's syntax."""

    def told(self) -> Iterator[str]:
        """What to know of the rows before looking at pictures, a line each kind."""
        yield from self.remarks
        yield from self.vain
        yield from self.pictures.told()
        yield from self.swept.told(swept=True)
        if self.settings_of_columns:
            given = ", ".join(
                name if name == setting else f"{setting} ({shortened(name)})"
                for name, setting in self.settings_of_columns.items()
            )
            declined = in_yaml(list(self.settings_of_columns))
            yield f"{given} from columns of prompt files: `ignore: {declined}` leaves them out"
        if self.unguided:
            rows = counted(self.unguided, "row")
            yield f"{rows} with a guidance_scale of 0 or 1: guidance is off there, and 0 counts as 1"
        if self.text_files > 1 and self.short_files * 2 > self.text_files:
            yield (
                f"{self.short_files:,} of {self.text_files:,} .txt files have one line: if each file is one "
                "prompt, `one_per_file: true` reads it whole, with the file's name as its id"
            )

    def add(self, noticed: Noticed) -> None:
        """Take in what there is to say about one more file."""
        self.settings_of_columns |= noticed.settings_of_columns
        self.unguided += noticed.unguided
        self.pictures.add(noticed.pictures)
        self.text_files += noticed.lines is not None
        self.short_files += noticed.lines == 1
        for what, times in noticed.left_out.items():
            if what == COMMENT:
                self.comments += times
            else:
                self.dropped_flags[what] = self.dropped_flags.get(what, 0) + times

    def taken(self, line: Line) -> Line:
        """The line with its columns as they are written, once what they hold was taken in."""
        self.columns.add(line.columns)
        return (
            line._replace(columns=with_json(line.columns, self.json_columns)) if self.json_columns else line
        )

    def left_out(self) -> Iterator[str]:
        """What was left out of .txt files as meant, a line each kind."""
        if self.comments:
            yield f"{counted(self.comments, 'line')} beginning with # (comments)"
        if self.dropped_flags:
            flags = ", ".join(f"{flag} ({times:,})" for flag, times in sorted(self.dropped_flags.items()))
            yield f"flags that change no picture: {flags}"
