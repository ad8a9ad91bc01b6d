"""What a second party needs: three steps, the device, the versions, the hashes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from adaptbench.report import html, sections, words
from adaptbench.report.view import View

_ENGINES = {"local": "the run’s own process", "ray": "workers of a Ray cluster"}


def steps(view: View) -> list[tuple[str, str]]:
    """(What it is for, the command) from an empty machine with Python and git to this page."""
    git, versions = view.manifest.get("git") or {}, view.manifest.get("versions") or {}
    name = str((view.manifest.get("suite") or {}).get("name") or view.run.path.name)
    torchattacks = "[attacks]" if "torchattacks" in versions else ""
    told = []
    if git.get("revision"):
        told.append(("check out, in a clone of adaptbench", f"git checkout {shlex.quote(str(git['revision']))}"))
        told.append(("install", f"python -m pip install {shlex.quote('.' + torchattacks)}"))
    else:
        version = versions.get("adaptbench")
        exact = f"=={version}" if version else ""
        told.append(("install", f"python -m pip install {shlex.quote(f'adaptbench{torchattacks}{exact}')}"))
    if view.manifest.get("command"):
        told.append(("run", str(view.manifest["command"])))
    told.append(("this page", f"adaptbench report {shlex.quote('runs/' + name)}"))
    return told


def hashes(view: View) -> list[tuple[str, str]]:
    """sha256 of what went in and of what came out, open on the page."""
    suite, files = view.manifest.get("suite") or {}, view.manifest.get("files") or {}
    data = {f"data: {name}": about.get("sha256") for name, about in (view.manifest.get("data") or {}).items()}
    written = {str(name): about.get("sha256") for name, about in files.items() if isinstance(about, Mapping)}
    return html.facts({"suite": suite.get("sha256"), **data, **written, "the whole run": view.manifest.get("digest")})


def run_facts(view: View) -> list[tuple[str, str]]:
    """Device, revision, seeds, duration: what a second party needs."""
    manifest = view.manifest
    suite, device, git = (manifest.get(key) or {} for key in ("suite", "device", "git"))
    details = {key: value for key, value in device.items() if key not in ("name", "kind", "fingerprint")}
    revision = (
        f"{git.get('revision')}{', with uncommitted changes' if git.get('dirty') else ''}"
        if git
        else "none is recorded"
    )
    data = {
        f"data: {name}": f"{words.count(about.get('n'))} inputs of the {about.get('split', 'test')} split, "
        f"sha256 {about.get('sha256', 'unknown')}"
        for name, about in (manifest.get("data") or {}).items()
    }
    return html.facts(
        {
            "suite": suite.get("name"),
            "overrides": words.listing(str(override) for override in suite.get("overrides") or []),
            "limit": f"the first {words.count(suite['limit'])} inputs" if suite.get("limit") else "",
            "device": f"{device.get('name', 'unknown')} ({device.get('kind', 'unknown')})" if device else "",
            "device details": sections.settings(details),
            "fingerprint": device.get("fingerprint"),
            "computed by": made_by(manifest.get("engines") or {}),
            "git revision": revision,
            "seeds": words.listing(str(seed) for seed in manifest.get("seeds") or []),
            **data,
            "started": manifest.get("started"),
            "took": took(manifest) if manifest.get("ended") else "not finished",
        }
    )


def made_by(engines: Mapping[str, Any]) -> str:
    """Which engine made how many of the cells, on which devices; empty where that was not recorded.

    Args:
        engines: of a manifest: engine → its ``cells``, and ``devices``, device → how many.
    """
    told = []
    for name, about in engines.items():
        devices = [f"{device} ({words.count(n)})" for device, n in (about.get("devices") or {}).items() if device]
        on = f" on {words.listing(devices)}" if devices else ""
        told.append(f"{_ENGINES.get(name, name)}: {words.plural(len(about.get('cells') or []), 'cell')}{on}")
    return "; ".join(told)


def took(manifest: Mapping[str, Any]) -> str:
    """How long the run took over all its stretches, and which of them nobody timed."""
    stretches = manifest.get("stretches") or [manifest]
    spans = [duration_s(stretch) for stretch in stretches]
    known = [span for span in spans if span is not None]
    text = words.seconds(sum(known) if known else None)
    if len(spans) > 1:
        text += f" in {words.plural(len(known), 'stretch', 'stretches')}"
    if known and len(known) < len(spans):
        text += f"; {len(spans) - len(known)} more ended unseen, how long is not known"
    revisions = dict.fromkeys(str((stretch.get("git") or {}).get("revision")) for stretch in stretches)
    if len(revisions) > 1:
        text += f"; at the revisions {', '.join(revisions)}"
    if before := stretches[0].get("before"):
        text += f"; {words.plural(before, 'evaluation')} computed before it, in no stretch"
    return text


def duration_s(told: Mapping[str, Any]) -> float | None:
    """Seconds between ``started`` and ``ended``; None where one is not said."""
    try:
        span = datetime.fromisoformat(told["ended"]) - datetime.fromisoformat(told["started"])
    except (KeyError, TypeError, ValueError):
        return None
    return span.total_seconds()
