"""What a run found, in words: the summary that is printed, and docs/mutants.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.mutation.excused import EXCUSED
from tests.mutation.model import RULES, Mutant
from tests.mutation.structure import NOT_BUILT, STRUCTURE

LANGUAGES = ("Python", "Solidity", "Core")
"""What is dropped in Python and in the contracts, and the small changes of the contracts' core."""


@dataclass
class Report:
    """`caught` is the test that fails without the check, by mutant's number; `errors` what the tool could not say.

    `cases` are the adversary suite's cases by the check without which they fail; `cases_alone` those that no single
    removed check makes fail, `cases_lost` those that would not run.
    """

    mutants: Sequence[Mutant]
    caught: Mapping[int, str]
    errors: Mapping[int, str]
    cases: Mapping[str, str] = field(default_factory=dict)
    cases_alone: Sequence[str] = ()
    cases_lost: Sequence[str] = ()

    @property
    def survivors(self) -> list[Mutant]:
        return [
            m for m in self.mutants if m.number not in self.caught and m.number not in self.errors and not excused(m)
        ]

    @property
    def stale_excuses(self) -> list[str]:
        """Excuses of mutants that were caught."""
        return [m.name for m in self.mutants if excused(m) and m.number in self.caught]

    @property
    def broken(self) -> dict[str, str]:
        """Mutants about which the tool could say nothing, by name."""
        return {m.name: self.errors[m.number] for m in self.mutants if m.number in self.errors and not excused(m)}

    @property
    def good(self) -> bool:
        return not (self.survivors or self.broken or self.stale_excuses or self.cases_lost)

    def lines(self) -> list[str]:
        result = [f"{'mutants':<12} {'checks':>7} {'caught':>7} {'excused':>8} {'survived':>9} {'unknown':>8}"]
        for language in LANGUAGES:
            mine = [m for m in self.mutants if m.language == language]
            counts = (
                sum(m.number in self.caught for m in mine),
                sum(excused(m) and m.number not in self.caught for m in mine),
                sum(m.language == language for m in self.survivors),
                sum(m.number in self.errors and not excused(m) for m in mine),
            )
            result.append(f"{language:<12} {len(mine):>7} {counts[0]:>7} {counts[1]:>8} {counts[2]:>9} {counts[3]:>8}")
        if self.cases or self.cases_alone:
            total = len(self.cases) + len(self.cases_alone) + len(self.cases_lost)
            result.append(f"adversary suite: {len(self.cases)} of {total} cases fail when one check is removed")
        return result

    def complaints(self) -> list[str]:
        """What has to be put right, loudly."""
        result = []
        for mutant in self.survivors:
            result.append(f"SURVIVED {mutant.name}: {mutant.text} ({', '.join(mutant.rules)}; line {mutant.line})")
        result += [f"UNKNOWN {name}: {why}" for name, why in self.broken.items()]
        result += [f"EXCUSED, YET CAUGHT {name}" for name in self.stale_excuses]
        result += [f"WOULD NOT RUN {case}" for case in self.cases_lost]
        return result

    def document(self) -> str:
        """docs/mutants.md."""
        lines = [
            "# What catches a check that is missing",
            "",
            "Written by `scripts/mutants --write`; not by hand. Each check of `enclave_app/`, `oracle/` and `contracts/src/`",
            "that names a rule of the design was dropped, alone, and the tests were run in which it refuses. Parts that `or`",
            "joins are checks of their own. The test named is the first that failed; the host adversary suite goes first.",
            "",
            "```",
            *self.lines(),
            "```",
            "",
            "## Rules",
            "| rule | checks | held by structure, as these tests show |",
            "|---|---|---|",
        ]
        count = Counter(rule for mutant in self.mutants for rule in mutant.rules)
        for rule in (*RULES[:7], "R7b", *RULES[7:17], "R17b", *RULES[17:]):
            shown = [f"`{test}`" for test in STRUCTURE.get(rule, ())]
            if rule in NOT_BUILT:
                shown.append(NOT_BUILT[rule])
            lines.append(f"| {rule} | {count[rule]} | {'<br>'.join(shown)} |")
        lines += ["", "## Checks"]
        for language in LANGUAGES:
            lines += [f"### {language}", "| check | drops | rules | caught by |", "|---|---|---|---|"]
            for m in self.mutants:
                if m.language == language and m.number in self.caught:
                    rules = " ".join(m.rules)
                    lines.append(
                        f"| {_cell(m.name)} | `{_code(m.text)}` | {rules} | `{_code(self.caught[m.number])}` |"
                    )
            lines.append("")
        lines += ["## Excused", "Dropping these changes nothing that can be seen; each has its reason.", ""]
        lines += [f"- {name}: {reason}" for name, reason in EXCUSED.items()] or ["None."]
        if self.cases_alone:
            lines += [
                "",
                "## Cases behind more than one check",
                "These cases of the adversary suite are refused the same way when any one check is removed: another refuses.",
                "",
                *(f"- `{case}`" for case in self.cases_alone),
            ]
        return "\n".join(lines) + "\n"


def excused(mutant: Mutant) -> bool:
    return mutant.name in EXCUSED


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return (text if len(text) <= 120 else f"{text[:119]}…").replace("`", "'").replace("|", "\\|")
