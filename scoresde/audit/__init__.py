r"""Test a trained score at each noise scale."""

from scoresde.audit.agreement import Agreement
from scoresde.audit.auditing import audit
from scoresde.audit.identities import Estimate, Findings
from scoresde.audit.result import Audit, Level, Memory

__all__ = ["Agreement", "Audit", "Estimate", "Findings", "Level", "Memory", "audit"]
