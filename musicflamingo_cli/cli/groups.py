"""The members of a pool, or the nodes of a cluster, as groups for a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from musicflamingo_cli.engines.pool.member import MemberState, MemberStatus

_SHOWN = 8
_ACTOR = re.compile(r"(.+) \((actor \d+)\)")  # as ClusterCaptioner.members names them: node (actor 3)


@dataclass(frozen=True, slots=True)
class Group:
    """A member, or all actors of a node, with what is known of them in short texts."""

    name: str
    is_ready: bool
    facts: Sequence[str]


def groups_of(members: Sequence[MemberStatus]) -> list[Group]:
    """Return a group for each member or node; of many those that do not work first, and then a count."""
    by_name: dict[str, list[MemberStatus]] = {}
    for member in members:
        match = _ACTOR.fullmatch(member.name)
        by_name.setdefault(match[1] if match else member.name, []).append(member)
    groups = [_group(name, some) for name, some in by_name.items()]
    if len(groups) <= _SHOWN:
        return groups
    at_rest = [group for group in groups if not group.is_ready]
    facts = _facts(members, f"{len(groups) - len(at_rest)} of {len(groups)} work")
    return [Group(name="all", is_ready=not at_rest, facts=facts), *at_rest[: _SHOWN - 1]]


def _group(name: str, members: Sequence[MemberStatus]) -> Group:
    ready = sum(member.state == MemberState.READY for member in members)
    state = str(members[0].state) if len(members) == 1 else f"{ready} of {len(members)} actors ready"
    return Group(name=name, is_ready=ready == len(members), facts=_facts(members, state))


def _facts(members: Sequence[MemberStatus], state: str) -> tuple[str, ...]:
    busy, slots = sum(member.busy for member in members), sum(member.slots for member in members)
    tracks, per_hour = sum(member.clips for member in members), sum(member.per_hour for member in members)
    return state, f"{busy} of {slots} slots busy", f"{tracks} tracks", f"{per_hour:.0f} per hour"
