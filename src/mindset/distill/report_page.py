"""The figures of a report told to people: a Markdown page, and a summary for a terminal.

Works on the plain data of `report.json` alone: knows no model and measures nothing. Invariant: every number on the page
is in the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

__all__ = ["page", "summary"]

Figures = Mapping[str, Any]
WIDTH = 96
"""Characters in a line of the summary."""
STAGES = {
    "local": "local: each layer alone",
    "end_to_end": "end to end",
    "heal": "healing on text",
    "heal-teacher": "the teacher's healing, beside it",
}
TEXTS = {
    "own_samples": "held-out samples of the teacher's own",
    "pydoc_topics": "Python's help topics (pydoc_topics)",
}


def page(figures: Figures) -> str:
    """The whole report."""
    head = f"# {figures['evaluation']['name']}: a memory distilled from {figures['evaluation']['teacher']}"
    parts = [
        head + "\n\n" + "\n".join(f"{line}  " for line in _story(figures)).rstrip(),
        _bits(figures),
        _gaps(figures),
        _sizes(figures),
        _continuations(figures),
        _training(figures),
        _layers(figures),
        _settings(figures),
    ]
    return "\n\n".join(parts) + "\n"


def summary(figures: Figures) -> str:
    """What a person reads at the end of a run."""
    rows = [("bits per byte", "student", "teacher", "gap", "95 % interval")]
    for text in figures["evaluation"]["texts"]:
        low, high = text["gap_interval"]
        rows.append(
            (
                text["name"],
                _number(text["bits_per_byte"]),
                _number(text["teacher_bits_per_byte"]),
                _number(text["gap"]),
                f"{_number(low)} to {_number(high)}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    what, _, *rest = _story(figures)
    buys, costs = (fill(line.replace("**", ""), WIDTH) for line in rest[1:])
    return "\n".join([fill(what, WIDTH), "", *table, "", buys, costs])


# ---- the story -----------------------------------------------------------------------------------------------


def _story(figures: Figures) -> list[str]:
    """Five lines: what was made, what it lost on other text and on its own, what that buys, what it costs."""
    return [_made(figures), _lost(figures), _lost_at_home(figures), _buys(figures), _costs(figures)]


def _made(figures: Figures) -> str:
    memory, teacher = figures["memory"], figures["evaluation"]["teacher"]
    of = "all" if memory["layers"] == memory["layers_in_all"] else f"{memory['layers']} of the"
    return (
        f"In {of} {memory['layers_in_all']} layers of {teacher} the feed-forward block is now a {memory['kind']} bank "
        f"of {memory['slots_per_layer']:,} slots, of which {memory['k']:,} answer for a token"
        f"{' and head' if memory['heads'] > 1 else ''}."
    )


def _lost(figures: Figures) -> str:
    text = next((t for t in figures["evaluation"]["texts"] if t["name"] != "own_samples"), None)
    if text is None:
        return "No text but the teacher's own was scored."
    without = text["no_memory_bits_per_byte"]
    return (
        f"On {_told(text['name'])} it needs **{_number(text['bits_per_byte'])} bits per byte** where the teacher needs "
        f"{_number(text['teacher_bits_per_byte'])}: a gap of **{_number(text['gap'])}** {_between(text)}"
        f"{_won(figures)}; without its memory it needs {_number(without)}."
    )


def _won(figures: Figures) -> str:
    """What the gap was before training, on the smaller text of the looks."""
    before, after, k = figures["looks"]["untrained"], figures["looks"]["trained"], str(figures["memory"]["k"])
    if before is None or k not in before["gaps"] or k not in after["gaps"]:
        return ""
    untrained, trained = (_number(seen["gaps"][k]["estimate"]) for seen in (before, after))
    return f"; training took it from {untrained} to {trained} on the first {before['tokens']:,} tokens"


def _lost_at_home(figures: Figures) -> str:
    text = next((t for t in figures["evaluation"]["texts"] if t["name"] == "own_samples"), None)
    if text is None:
        return "The teacher's own samples were not scored."
    return (
        f"On {_told('own_samples')} the gap is **{_number(text['gap'])}** {_between(text)}, and both would say the "
        f"same token {text['top1_agreement']:.0%} of the time."
    )


def _buys(figures: Figures) -> str:
    memory = figures["memory"]
    return (
        f"**What it buys:** a memory to edit and cite, {memory['slots']:,} slots that can each be read and named; "
        f"its keys ({_size(memory['key_bytes'])}) stay resident, its values and modulators "
        f"({_size(memory['value_and_modulator_bytes'])}) can leave RAM."
    )


def _costs(figures: Figures) -> str:
    measured = figures["evaluation"]
    lost = " and ".join(f"{_number(text['gap'])} on {text['name']}" for text in measured["texts"])
    moved, dense, before = (
        f"{measured[name]:,}"
        for name in ("memory_parameters", "dense_parameters", "teacher_dense_parameters")
    )
    ratio = measured["speed_ratio"]
    speed = (
        "its speed was not measured"
        if ratio is None
        else f"it decodes at {ratio:.2f} times the teacher's speed"
    )
    return (
        f"**What it costs:** bits per byte ({lost}); {moved} parameters were moved into the memory, not removed "
        f"({dense} of {before} are still dense); {speed}."
    )


def _between(text: Figures) -> str:
    low, high = text["gap_interval"]
    return f"({_number(low)} to {_number(high)})"


# ---- the tables ----------------------------------------------------------------------------------------------


def _bits(figures: Figures) -> str:
    healing = figures["healing"]
    head = ["text", "tokens", "student", "teacher", "gap", "no memory", "KL, nats a token", "same token"]
    head += ["teacher, healed alike", "gap to it"] if healing else []
    rows = []
    for text in figures["evaluation"]["texts"]:
        row = [
            _told(text["name"]),
            f"{text['tokens']:,} in {text['windows']} windows of {text['window']}",
            f"{_number(text['bits_per_byte'])} ({_range(text['interval'])})",
            f"{_number(text['teacher_bits_per_byte'])} ({_range(text['teacher_interval'])})",
            f"{_number(text['gap'])} {_between(text)}",
            _number(text["no_memory_bits_per_byte"]),
            _number(text["kl"]),
            f"{text['top1_agreement']:.1%}",
        ]
        if healing:
            also = healing["texts"][text["name"]]
            row += [_number(also["teacher_bits_per_byte"]), _number(also["gap"])]
        rows.append(row)
    words = (
        "Protocol bpb-1: windows that do not overlap, their first token unscored. In brackets: 95 % bootstrap "
        "intervals over windows, for the gap paired; with fewer than about 20 windows they are rough. A large model is "
        "scored on the beginning of a long text; `mindset eval` scores all of it."
    )
    healed = f" Student and teacher were healed alike, {healing['steps']:,} steps on text." if healing else ""
    return f"## Bits per byte\n\n{_table(head, rows)}\n\n{words}{healed}"


def _gaps(figures: Figures) -> str:
    before, after = figures["looks"]["untrained"], figures["looks"]["trained"]
    rows = []
    for k, gap in sorted(after["gaps"].items(), key=lambda item: -int(item[0])):
        was = None if before is None else before["gaps"].get(k)
        name = f"{int(k):,} (all)" if int(k) == after["n_slots"] else f"{int(k):,}"
        rows.append([name, "-" if was is None else _with_interval(was), _with_interval(gap)])
    words = (
        f"Gap in bits per byte on the first {after['tokens']:,} tokens of {after['text']}, where the teacher needs "
        f"{_number(after['teacher_bits_per_byte'])}. Training ended at k = {figures['memory']['k']:,}."
    )
    picture = f"![Gap against k, untrained and trained]({figures['pictures']['gap_by_k']})"
    return f"## Gap against k\n\n{picture}\n\n{_table(['k', 'untrained', 'trained'], rows)}\n\n{words}"


def _sizes(figures: Figures) -> str:
    measured = figures["evaluation"]
    rows = [
        [
            "dense parameters",
            f"{measured['dense_parameters']:,}",
            f"{measured['teacher_dense_parameters']:,}",
        ],
        ["memory parameters", f"{measured['memory_parameters']:,}", "0"],
        ["bytes in RAM", _size(measured["bytes_in_ram"]), _size(measured["teacher_bytes_in_ram"])],
        ["bytes on disk", _size(measured["bytes_on_disk"]), _size(measured["teacher_bytes_on_disk"])],
        [
            "tokens per second",
            _number(measured["tokens_per_second"], 1),
            _number(measured["teacher_tokens_per_second"], 1),
        ],
    ]
    words = "Speed: one sequence at a time, both models in turn in one process."
    if measured["speed_ratio"] is not None:
        low, high = measured["speed_ratio_range"]
        words += f" Student over teacher {measured['speed_ratio']:.2f} ({low:.2f} to {high:.2f})."
    notes = "".join(f"\n\n> {note}" for note in measured["notes"])
    return f"## Size and speed\n\n{_table(['', 'student', 'teacher'], rows)}\n\n{words}{notes}"


def _continuations(figures: Figures) -> str:
    rows = [
        [_cell(told["prompt"]), _cell(told["teacher"]), _cell(told["student"])]
        for told in figures["continuations"]
    ]
    table = _table(["prompt", "teacher", "student"], rows, left=3)
    return f"## Continuations\n\n{table}\n\nThe likeliest token each time, 40 tokens; ⏎ is a line break."


def _training(figures: Figures) -> str:
    stages = [
        [STAGES.get(name, name), f"{stage['steps']:,}", _number(stage["seconds"], 0)]
        for name, stage in figures["stages"].items()
    ]
    data = [
        [
            f"`{use['name']}`",
            f"{use['weight']:.0%}",
            f"{use['tokens_seen']:,}",
            f"{use['distinct_tokens']:,}",
            "drawn without end" if use["n_tokens"] is None else f"{use['n_tokens']:,}",
            f"{use['passes']:.2f}",
        ]
        for use in figures["data"]
    ]
    head = ["source", "share", "tokens read", "of them distinct", "tokens there are", "passes"]
    return (
        f"## Training\n\n{_table(['stage', 'steps', 'seconds'], stages)}\n\n"
        f"{_table(head, data)}\n\nSources as the last stage of distillation read them."
    )


def _layers(figures: Figures) -> str:
    measured = figures["evaluation"]
    before, after = figures["looks"]["untrained"], figures["looks"]["trained"]
    untrained: Sequence[float | None] = [None] * len(after["fvu"]) if before is None else before["fvu"]
    columns = (measured["layers"], measured["k"], untrained, after["fvu"], measured["slot_use"])
    rows = [
        [str(layer), "all" if k is None else f"{k:,}", _number(was), _number(fvu), f"{use:.1%}"]
        for layer, k, was, fvu, use in zip(*columns, strict=True)
    ]
    picture = f"![fvu of each layer]({figures['pictures']['fvu']})"
    words = (
        f"fvu: the fraction of variance that a bank leaves unexplained of its block's output, fed the teacher's "
        f"activations, on the first {after['tokens']:,} tokens of {after['text']}. Slots read: at least once over all "
        f"scored texts."
    )
    table = _table(["layer", "k", "fvu untrained", "fvu trained", "slots read"], rows)
    return f"## Layers\n\n{picture}\n\n{words}\n\n{table}"


def _settings(figures: Figures) -> str:
    settings = dict(figures["settings"])
    plan = {f"plan.{name}": value for name, value in settings.pop("plan").items()}
    environment = {f"environment.{name}": value for name, value in figures["environment"].items()}
    evaluation = {f"evaluation.{name}": value for name, value in figures["evaluation"]["settings"].items()}
    rows = [
        [f"`{name}`", f"`{_setting(value)}`"]
        for name, value in (settings | plan | evaluation | environment).items()
    ]
    return f"## Settings\n\nSeed {figures['seed']}.\n\n{_table(['setting', 'value'], rows, left=2)}"


# ---- words and numbers ---------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are flush left."""
    rule = [":--" if index < left else "--:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _told(name: str) -> str:
    return TEXTS.get(name, name)


def _number(value: float | None, digits: int = 3) -> str:
    """A figure, without the sign of a rounded zero; a dash where there is none."""
    if value is None:
        return "-"
    told = f"{value:,.{digits}f}"
    return told.lstrip("-") if float(told.replace(",", "")) == 0 else told


def _with_interval(gap: Figures) -> str:
    return f"{_number(gap['estimate'])} ({_range((gap['low'], gap['high']))})"


def _range(ends: Sequence[float]) -> str:
    low, high = ends
    return f"{_number(low)} to {_number(high)}"


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "-"
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def _cell(text: str) -> str:
    """Text of a model as it can stand in a table."""
    kept = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return kept.replace("*", "\\*").replace("_", "\\_").replace("\r", "").replace("\n", " ⏎ ").strip()


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
