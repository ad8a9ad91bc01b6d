"""Every case of a run as one table, and where each of its rows is from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptbench.report import modes, words
from adaptbench.report.tables import Builder, Column, Table, TableCell, figure, scaled_interval, share_cell
from adaptbench.report.view import Record, View, missing, reference_name
from adaptbench.results.identity import static_of

_ORDER = ("clean", "control", "attack", "transfer", "sweep", "reference")


def ordered(view: View) -> list[Record]:
    """Model by model: clean, controls, attacks, what was carried over, sweeps; references of all models at the end."""
    found: dict[str, Record] = {}
    for subject in view.subjects:
        for kind in _ORDER:
            found |= {record["case"]: record for record in view.of(subject, kind)}
    found |= {record["case"]: record for record in view.records if record["case"] not in found}
    return list(found.values())


def case_title(view: View, record: Record) -> str:
    """Model and condition of a case in words."""
    if record["kind"] == "reference":
        name = f"{reference_name(record)} reference"
        whose = (
            f"{view.model_title(record['model'])} · " if record["model"] in (view.manifest.get("models") or {}) else ""
        )
        return f"{whose}{name}{_knob(record)}"
    title = f"{view.model_title(record['model'])} · {view.condition_title(record)}"
    if record.get("surrogate"):
        title += f", crafted on {view.surrogate_title(str(record['surrogate']))}"
    return title + _knob(record)


def _knob(record: Record) -> str:
    knob, value = record.get("knob"), record.get("knob_value")
    if not knob or value is None:
        return ""
    return f", {knob} {f'{value:g}' if words.exists(value) else value}"


def case_table(view: View) -> Table:
    """One row a case, one unit a column; sorted and filtered by whoever reads."""
    records = ordered(view)
    macs_unit, macs = words.column([record.get("macs_mean") for record in records], "MACs")
    time_unit, seconds = time_scale(view)
    energy_unit, joules = words.column([record.get("energy_j_per_sample") for record in records], "J")
    columns = [
        Column("case", numeric=False),
        Column("batch"),
        *modes.columns(view),
        Column(view.metric_word, unit="share"),
        Column(f"{macs_unit} a sample", unit="MACs"),
        Column("of its plain net", unit="share"),
        Column("taken back", unit="share of head-room"),
        Column(f"{time_unit} a sample", unit="s"),
        Column("time saved", unit="share"),
        Column(f"{energy_unit} a sample, measured", unit="J"),
        Column(f"{energy_unit} a sample, modelled", unit="J"),
        Column("inputs"),
        Column("timed inputs"),
    ]
    several = len({record["data"] for record in records}) > 1
    table = Builder("table-cases", "Every case", columns)
    for place, record in enumerate(records):
        title = case_title(view, record) + (f" · {record['data']}" if several else "")
        batch = record.get("batch_size")
        table.add(
            TableCell(title, value=str(record["case"]), href=f"#from-{place}"),
            TableCell(words.count(batch), value=batch) if batch else TableCell(words.DASH, reason="not timed"),
            *modes.cells(view, record),
            share_cell(record, view.metric),
            _scaled(record, "macs_mean", macs, _same_inputs(view, record, macs)),
            of_plain(record),
            _taken_back(record),
            _scaled(record, "latency_s_per_sample", seconds),
            share_cell(record, "saving_time", 0),
            _energy(record, "measured", joules),
            _energy(record, "modelled", joules),
            figure(record, "n", words.count(record.get("n"))),
            TableCell(words.count(record["n_timed"]), value=record["n_timed"])
            if words.exists(record.get("n_timed"))
            else TableCell(words.DASH, reason="not timed"),
            kind=str(record.get("kind", "")),
            anchor=f"case-{place}",
        )
    kinds = {words.provenance_kind(record.get("energy_provenance")) for record in records}
    joule_columns = {kind: place + len(modes.columns(view)) for kind, place in (("measured", 8), ("modelled", 9))}
    empty = [place for kind, place in joule_columns.items() if kind not in kinds and kinds - {""}]
    return table.build(drop_empty=empty or [joule_columns["modelled"]], filtered=True)


def time_scale(view: View) -> tuple[str, words.Writer]:
    """The unit in which seconds a sample are written on the whole page."""
    return words.column([record.get("latency_s_per_sample") for record in view.records], "s")


def _scaled(record: Record, name: str, write: words.Writer, under: str = "") -> TableCell:
    return figure(
        record, name, write(record.get(name)), under=under or scaled_interval(record.get(f"{name}_ci"), write)
    )


def _same_inputs(view: View, record: Record, write: words.Writer) -> str:
    """The clean mean of the same inputs, where fewer were run than clean."""
    if record["kind"] not in ("control", "attack", "transfer"):
        return ""
    clean = next((r for r in view.records if r["kind"] == "clean" and r["model"] == record["model"]
                  and r["data"] == record["data"]), None)  # fmt: skip
    before = record.get("macs_clean_mean")
    if clean is None or record.get("n") == clean.get("n") or not words.exists(before):
        return ""
    return f"clean, the same {words.count(record.get('n'))}: {write(before)}"


def of_plain(record: Record) -> TableCell:
    """MACs as a share of those of the model's plain net, with a bar."""
    mean, full = record.get("macs_mean"), record.get("macs_full")
    if not (words.exists(mean) and words.exists(full) and full):
        return TableCell(words.DASH, reason=missing(record, "macs_full"))
    return TableCell(words.percent(mean / full, 0), value=mean / full, share=min(mean / full, 1.0))


def _taken_back(record: Record) -> TableCell:
    if record["kind"] in ("clean", "sweep", "reference") and not words.exists(record.get("recovery")):
        return TableCell(words.DASH, reason="clean inputs: nobody attacks")
    return share_cell(record, "recovery")


def _energy(record: Record, kind: str, write: words.Writer) -> TableCell:
    """Energy a sample if it is of this kind; a modelled one never stands in a measured column."""
    provenance = words.provenance_kind(record.get("energy_provenance"))
    if words.exists(record.get("energy_j_per_sample")) and provenance != kind:
        return TableCell(words.DASH, reason=f"this case’s energy is {provenance or 'of no stated origin'}, not {kind}")
    return _scaled(record, "energy_j_per_sample", write)


def origin_table(view: View) -> Table:
    """Where a row's figures come from: its id, and how many rows of which file hold it."""
    records = ordered(view)
    samples, windows = _amounts(view.run.samples()["case"]), _amounts(view.windows["case"])
    columns = [
        Column("row", numeric=False),
        Column("id of the case", numeric=False),
        Column("rows of samples.parquet"),
        Column("rows of windows.parquet"),
        Column("of its plain net"),
        Column("pictures", numeric=False),
        Column("inputs’ sha256", numeric=False),
    ]
    table = Builder("table-origins", "Where every row comes from", columns)
    for place, record in enumerate(records):
        rows = samples.get(record["evaluation"], 0)
        timed = windows.get(record["case"], 0) if record.get("batch_size") else 0
        plain = windows.get(static_of(record), 0) if timed else 0
        table.add(
            TableCell(case_title(view, record), href=f"#case-{place}"),
            str(record["case"]),
            *(TableCell(words.count(amount), value=amount) for amount in (rows, timed, plain)),
            f"crafted/{words.clip(str(record['crafted']), 17)}" if record.get("crafted") else words.DASH,
            words.clip(str(record.get("inputs_sha256") or words.DASH), 13),
            kind=str(record.get("kind", "")),
            anchor=f"from-{place}",
        )
    return table.build(filtered=True)


def _amounts(cases: Iterable[str]) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for case in cases:
        amounts[case] = amounts.get(case, 0) + 1
    return amounts


_FIELDS = (
    "case", "macs_p99", "macs_cvar", "macs_budget", "budget_violation", "depth_mean", "increase", "recovery_seen",
    "label_kept", "realised_saving_time", "executor_share", "ties",
)  # fmt: skip


def rest_table(view: View) -> Table:
    """Further figures under the names that summary.json gives them."""
    table = Builder("table-fields", "Further fields of every case", [Column(n, numeric=n != "case") for n in _FIELDS])
    for record in ordered(view):
        cells = list(_plain(record))
        if any(cell.value is not None for cell in cells):
            table.add(str(record["case"]), *cells, kind=str(record.get("kind", "")))
    return table.build(drop_empty=range(1, len(_FIELDS)))


def _plain(record: Record) -> Iterator[TableCell]:
    for name in _FIELDS[1:]:
        value = record.get(name)
        yield (
            TableCell(f"{value:.4g}", value=value)
            if words.exists(value)
            else TableCell(words.DASH, reason=missing(record, name))
        )
