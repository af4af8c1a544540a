"""Consumer groups as a pure state machine: no sockets, no files, the time is given to every call.

    empty ──join──▶ preparing ──all joined or time is up──▶ completing ──leader's sync──▶ stable
      ▲                 ▲                                        │                          │
      └──last one left──┴───────── join, leave, time-out ────────┴──────────────────────────┘

Members wait for answers: a call takes a `token` (anything hashable) and answers come out as
`Reply(token, …)`, now or from a later call. `next_deadline` tells when `tick` has something to do.
Generations go on from what is given at start; memberships do not survive, members join again.
Subscriptions and assignments are opaque bytes. The rules are those of Kafka's classic protocol.
"""

from __future__ import annotations

import enum
import uuid
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.embedded.settings import LogSettings

Token = Hashable


class GroupState(enum.Enum):
    """Named as DescribeGroups shows them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


class JoinRequest(NamedTuple):
    """What a member says when it joins. `requires_known_id`: Join version 4 and later."""

    group: str
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    requires_known_id: bool


class JoinedMember(NamedTuple):
    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinAnswer(NamedTuple):
    """`error` is a protocol error name."""

    error: str
    member_id: str = ""
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    members: tuple[JoinedMember, ...] = ()


class SyncAnswer(NamedTuple):
    error: str
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


class Reply(NamedTuple):
    """An answer for whoever waits with `token`."""

    token: Token
    answer: JoinAnswer | SyncAnswer


@dataclass(slots=True)
class Member:
    """One member of a group."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    heard_ms: int
    assignment: bytes = b""
    join_token: Token | None = None
    sync_token: Token | None = None
    synced: bool = False

    def metadata(self, protocol: str | None) -> bytes:
        return next((data for name, data in self.protocols if name == protocol), b"")


@dataclass(slots=True)
class Group:
    """One group; changed only by Groups."""

    name: str
    generation: int = 0
    protocol_type: str = ""
    state: GroupState = GroupState.EMPTY
    protocol: str | None = None
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    static: dict[str, str] = field(default_factory=dict)
    # Ids handed out by MEMBER_ID_REQUIRED, with the time until which they may be used.
    promised: dict[str, int] = field(default_factory=dict)
    deadline_ms: int = 0
    # End of the first rebalance's patience, however many go on joining.
    deadline_ms_max: int = 0
    extends: bool = False

    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)


class Groups:
    """All groups of a log.

    on_generation(group, generation, protocol type) is called before a generation is announced, so that
    it can be made durable.
    """

    def __init__(
        self,
        settings: LogSettings,
        on_generation: Callable[[str, int, str], None],
        generations: dict[str, tuple[int, str]] | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._settings = settings
        self._on_generation = on_generation
        self._new_id = new_id
        self._replies: list[Reply] = []
        self.groups: dict[str, Group] = {
            name: Group(name, generation, protocol_type)
            for name, (generation, protocol_type) in (generations or {}).items()
        }

    # -- join ----------------------------------------------------------------------------------

    def join(self, request: JoinRequest, token: Token, now_ms: int) -> list[Reply]:
        """A member joins or joins again."""
        error = self._refusal(request)
        if error:
            return [Reply(token, JoinAnswer(error, request.member_id))]
        group = self.groups.setdefault(request.group, Group(request.group))
        error = self._unfit(group, request)
        if error:
            return [Reply(token, JoinAnswer(error, request.member_id))]
        if request.instance_id is not None and request.instance_id in group.static:
            self._join_static(group, request, token, now_ms)
        elif request.member_id == "":
            self._join_new(group, request, token, now_ms)
        elif request.member_id in group.promised:
            del group.promised[request.member_id]
            self._add(group, request, request.member_id, token, now_ms)
        elif request.member_id in group.members:
            self._rejoin(group, group.members[request.member_id], request, token, now_ms)
        else:
            self._reply(token, JoinAnswer("unknown_member_id", request.member_id))
        return self._drain()

    def _refusal(self, request: JoinRequest) -> str:
        settings = self._settings
        if not request.group:
            return "invalid_group_id"
        if (
            not settings.session_timeout_ms_min
            <= request.session_timeout_ms
            <= settings.session_timeout_ms_max
        ):
            return "invalid_session_timeout"
        if not request.protocols or not request.protocol_type:
            return "inconsistent_group_protocol"
        if request.group not in self.groups:
            if request.member_id:
                return "unknown_member_id"
            if len(self.groups) >= settings.groups_max:
                return "coordinator_not_available"
        return ""

    def _unfit(self, group: Group, request: JoinRequest) -> str:
        others = [member for member in group.members.values() if not _is_same(member, request)]
        if others:
            offered = {name for name, _ in request.protocols}
            common = set.intersection(*({name for name, _ in member.protocols} for member in others))
            if group.protocol_type != request.protocol_type or not common & offered:
                return "inconsistent_group_protocol"
        if len(others) >= self._settings.group_members_max:
            return "group_max_size_reached"
        return ""

    def _join_new(self, group: Group, request: JoinRequest, token: Token, now_ms: int) -> None:
        member_id = f"{request.instance_id or request.client_id or 'member'}-{self._new_id()}"
        if request.requires_known_id and request.instance_id is None:
            # A client that never comes back with the id must not hold up the group (KIP-394).
            if len(group.promised) >= self._settings.group_members_max:
                self._reply(token, JoinAnswer("group_max_size_reached"))
                return
            group.promised[member_id] = now_ms + request.session_timeout_ms
            self._reply(token, JoinAnswer("member_id_required", member_id))
            return
        self._add(group, request, member_id, token, now_ms)

    def _add(self, group: Group, request: JoinRequest, member_id: str, token: Token, now_ms: int) -> None:
        group.protocol_type = request.protocol_type
        member = Member(
            member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.session_timeout_ms,
            min(request.rebalance_timeout_ms, self._settings.rebalance_timeout_ms_max),
            request.protocols,
            now_ms,
            join_token=token,
        )
        group.members[member_id] = member
        if request.instance_id is not None:
            group.static[request.instance_id] = member_id
        if group.state is GroupState.PREPARING and group.extends:
            group.deadline_ms = min(now_ms + self._settings.group_initial_delay_ms, group.deadline_ms_max)
        self._prepare(group, now_ms)

    def _join_static(self, group: Group, request: JoinRequest, token: Token, now_ms: int) -> None:
        assert request.instance_id is not None
        known_id = group.static[request.instance_id]
        if request.member_id == known_id:
            self._rejoin(group, group.members[known_id], request, token, now_ms)
        elif request.member_id:
            self._reply(token, JoinAnswer("fenced_instance_id", request.member_id))
        else:
            self._return_static(group, known_id, request, token, now_ms)

    def _return_static(
        self, group: Group, old_id: str, request: JoinRequest, token: Token, now_ms: int
    ) -> None:
        """A restarted static member: a new id in the same generation, no rebalance if nothing changed."""
        member = group.members.pop(old_id)
        unchanged = member.protocols == request.protocols
        self._answer_fenced(member)
        member.member_id = f"{request.instance_id}-{self._new_id()}"
        member.client_id, member.client_host = request.client_id, request.client_host
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = min(
            request.rebalance_timeout_ms, self._settings.rebalance_timeout_ms_max
        )
        member.protocols, member.heard_ms = request.protocols, now_ms
        group.members[member.member_id] = member
        group.static[request.instance_id or ""] = member.member_id
        old_leader = group.leader
        if group.leader == old_id:
            group.leader = member.member_id
        if group.state is GroupState.STABLE and unchanged:
            # Naming the old leader keeps a returning leader from making an assignment nobody waits for.
            self._reply(token, self._joined(group, member, old_leader)._replace(members=()))
            return
        member.join_token = token
        self._prepare(group, now_ms)

    def _answer_fenced(self, member: Member) -> None:
        if member.join_token is not None:
            self._reply(member.join_token, JoinAnswer("fenced_instance_id", member.member_id))
        if member.sync_token is not None:
            self._reply(member.sync_token, SyncAnswer("fenced_instance_id"))
        member.join_token = member.sync_token = None

    def _rejoin(self, group: Group, member: Member, request: JoinRequest, token: Token, now_ms: int) -> None:
        changed = member.protocols != request.protocols
        member.protocols, member.heard_ms = request.protocols, now_ms
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = min(
            request.rebalance_timeout_ms, self._settings.rebalance_timeout_ms_max
        )
        is_leader = member.member_id == group.leader
        answered = (group.state is GroupState.COMPLETING and not changed) or (
            group.state is GroupState.STABLE and not changed and not is_leader
        )
        if answered:
            # The reply was lost, or a follower asks again: the generation stands.
            self._reply(token, self._joined(group, member, group.leader))
            return
        self._replace_join_token(member, token)
        self._prepare(group, now_ms)

    def _replace_join_token(self, member: Member, token: Token) -> None:
        if member.join_token is not None and member.join_token != token:
            self._reply(member.join_token, JoinAnswer("rebalance_in_progress", member.member_id))
        member.join_token = token

    # -- rebalance -----------------------------------------------------------------------------

    def _prepare(self, group: Group, now_ms: int) -> None:
        """Begin a rebalance, or see whether the one under way can end."""
        if group.state is not GroupState.PREPARING:
            group.extends = group.state is GroupState.EMPTY
            timeout_ms = group.rebalance_timeout_ms()
            delay_ms = self._settings.group_initial_delay_ms if group.extends else timeout_ms
            group.deadline_ms_max = now_ms + max(timeout_ms, delay_ms)
            group.deadline_ms = now_ms + delay_ms
            group.state = GroupState.PREPARING
            for member in group.members.values():
                member.assignment, member.synced = b"", False
                self._answer_sync(member, SyncAnswer("rebalance_in_progress"))
        self._complete_if_all_joined(group, now_ms)

    def _complete_if_all_joined(self, group: Group, now_ms: int) -> None:
        waiting = group.extends and now_ms < group.deadline_ms and group.members
        everybody = all(member.join_token is not None for member in group.members.values())
        if everybody and not waiting and not group.promised:
            self._complete(group, now_ms)

    def _complete(self, group: Group, now_ms: int) -> None:
        """End the joining: those who came are the generation. Static members who did not come stay."""
        for member in [m for m in group.members.values() if m.join_token is None and m.instance_id is None]:
            self._drop(group, member)
        joined = [member.member_id for member in group.members.values() if member.join_token is not None]
        if group.members and not joined:
            # Only static members, and none of them is here: wait on, their sessions end by themselves.
            group.deadline_ms = now_ms + group.rebalance_timeout_ms()
            return
        group.generation += 1
        group.extends = False
        if not group.members:
            group.state, group.protocol, group.leader = GroupState.EMPTY, None, ""
            self._on_generation(group.name, group.generation, group.protocol_type)
            return
        group.protocol = self._vote(group)
        if group.leader not in joined:
            group.leader = joined[0]
        group.state = GroupState.COMPLETING
        group.deadline_ms = now_ms + group.rebalance_timeout_ms()
        self._on_generation(group.name, group.generation, group.protocol_type)
        for member in group.members.values():
            self._answer_join(group, member, now_ms)

    def _answer_join(self, group: Group, member: Member, now_ms: int) -> None:
        member.synced = False
        if member.join_token is not None:
            self._reply(member.join_token, self._joined(group, member, group.leader))
            member.join_token = None
            member.heard_ms = now_ms

    def _vote(self, group: Group) -> str:
        """The protocol that all have and most prefer."""
        members = list(group.members.values())
        common = set.intersection(*({name for name, _ in member.protocols} for member in members))
        votes = Counter(next(name for name, _ in member.protocols if name in common) for member in members)
        return votes.most_common(1)[0][0]

    def _joined(self, group: Group, member: Member, leader: str) -> JoinAnswer:
        members: tuple[JoinedMember, ...] = ()
        if member.member_id == leader:
            members = tuple(
                JoinedMember(m.member_id, m.instance_id, m.metadata(group.protocol))
                for m in group.members.values()
            )
        return JoinAnswer(
            "none", member.member_id, group.generation, group.protocol_type, group.protocol, leader, members
        )

    # -- sync, heartbeat, leave ----------------------------------------------------------------

    def sync(
        self,
        group_name: str,
        member_id: str,
        instance_id: str | None,
        generation: int,
        assignments: dict[str, bytes],
        token: Token,
        now_ms: int,
    ) -> list[Reply]:
        """The leader brings the assignments, the others wait for theirs."""
        group = self.groups.get(group_name)
        error = self._stranger(group, member_id, instance_id, generation)
        if error or group is None:
            return [Reply(token, SyncAnswer(error))]
        member = group.members[member_id]
        member.heard_ms = now_ms
        if group.state is GroupState.PREPARING:
            self._reply(token, SyncAnswer("rebalance_in_progress"))
        elif group.state is GroupState.STABLE:
            self._reply(token, self._synced(group, member))
        else:
            self._answer_sync(member, SyncAnswer("rebalance_in_progress"))
            member.sync_token, member.synced = token, True
            if member_id == group.leader:
                self._stabilise(group, assignments, now_ms)
        return self._drain()

    def _stabilise(self, group: Group, assignments: dict[str, bytes], now_ms: int) -> None:
        group.state = GroupState.STABLE
        for member in group.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_token is not None:
                member.heard_ms = now_ms
            self._answer_sync(member, self._synced(group, member))

    def _synced(self, group: Group, member: Member) -> SyncAnswer:
        return SyncAnswer("none", group.protocol_type, group.protocol, member.assignment)

    def _answer_sync(self, member: Member, answer: SyncAnswer) -> None:
        if member.sync_token is not None:
            self._reply(member.sync_token, answer)
            member.sync_token = None

    def heartbeat(
        self, group_name: str, member_id: str, instance_id: str | None, generation: int, now_ms: int
    ) -> str:
        """Error name. It is "none" while assignments are awaited: the member has nothing to do then."""
        group = self.groups.get(group_name)
        error = self._stranger(group, member_id, instance_id, generation)
        if error or group is None:
            return error
        group.members[member_id].heard_ms = now_ms
        return "rebalance_in_progress" if group.state is GroupState.PREPARING else "none"

    def leave(
        self, group_name: str, member_id: str, instance_id: str | None, now_ms: int
    ) -> tuple[str, list[Reply]]:
        """A member goes, named by its id or by its instance id alone."""
        group = self.groups.get(group_name)
        if group is None:
            return "unknown_member_id", []
        if instance_id is not None:
            known_id = group.static.get(instance_id)
            if known_id is None:
                return "unknown_member_id", []
            if member_id and member_id != known_id:
                return "fenced_instance_id", []
            member_id = known_id
        if group.promised.pop(member_id, None) is not None:
            if group.state is GroupState.PREPARING:
                self._complete_if_all_joined(group, now_ms)
            return "none", self._drain()
        member = group.members.get(member_id)
        if member is None:
            return "unknown_member_id", []
        self._remove(group, member, now_ms)
        return "none", self._drain()

    def check_commit(
        self, group_name: str, member_id: str, instance_id: str | None, generation: int, now_ms: int
    ) -> str:
        """May this sender commit offsets? Error name."""
        group = self.groups.get(group_name)
        if generation < 0 and not member_id:
            # A plain client that uses the group only as a place for its offsets.
            return "unknown_member_id" if group is not None and group.members else "none"
        error = self._stranger(group, member_id, instance_id, generation)
        if error or group is None:
            return error
        if group.state is GroupState.COMPLETING:
            return "rebalance_in_progress"
        group.members[member_id].heard_ms = now_ms
        return "none"

    def check_transactional_commit(
        self, group_name: str, member_id: str, instance_id: str | None, generation: int
    ) -> str:
        """The same for offsets inside of a transaction, whose sender need not be a member (KIP-447)."""
        if generation < 0 and not member_id:
            return "none"
        return self._stranger(self.groups.get(group_name), member_id, instance_id, generation)

    def _stranger(self, group: Group | None, member_id: str, instance_id: str | None, generation: int) -> str:
        if group is None:
            return "unknown_member_id"
        if instance_id is not None:
            known_id = group.static.get(instance_id)
            if known_id is not None and known_id != member_id:
                return "fenced_instance_id"
        if member_id not in group.members:
            return "unknown_member_id"
        return "illegal_generation" if generation != group.generation else ""

    def _remove(self, group: Group, member: Member, now_ms: int) -> None:
        """Take a member out and rebalance the rest."""
        self._drop(group, member)
        if group.state is GroupState.PREPARING:
            self._complete_if_all_joined(group, now_ms)
        else:
            self._prepare(group, now_ms)

    def _drop(self, group: Group, member: Member) -> None:
        del group.members[member.member_id]
        if member.instance_id is not None:
            group.static.pop(member.instance_id, None)
        if member.join_token is not None:
            self._reply(member.join_token, JoinAnswer("unknown_member_id", member.member_id))
        self._answer_sync(member, SyncAnswer("unknown_member_id"))

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When `tick` should be called next, in ms of the same clock."""
        return min((d for group in self.groups.values() for d in self._deadlines(group)), default=None)

    def _deadlines(self, group: Group) -> list[int]:
        deadlines = list(group.promised.values())
        if group.state in (GroupState.PREPARING, GroupState.COMPLETING):
            deadlines.append(group.deadline_ms)
        deadlines += [m.heard_ms + m.session_timeout_ms for m in group.members.values() if _is_watched(m)]
        return deadlines

    def tick(self, now_ms: int) -> list[Reply]:
        """Do what is due: drop silent members and unused ids, end rebalances whose time is up."""
        for group in list(self.groups.values()):
            self._expire(group, now_ms)
            if group.state is GroupState.PREPARING:
                if now_ms >= group.deadline_ms:
                    self._complete(group, now_ms)
            elif group.state is GroupState.COMPLETING and now_ms >= group.deadline_ms:
                self._drop_unsynced(group, now_ms)
        return self._drain()

    def _expire(self, group: Group, now_ms: int) -> None:
        for member_id, until_ms in list(group.promised.items()):
            if now_ms >= until_ms:
                del group.promised[member_id]
                if group.state is GroupState.PREPARING:
                    self._complete_if_all_joined(group, now_ms)
        for member in list(group.members.values()):
            silent = _is_watched(member) and now_ms >= member.heard_ms + member.session_timeout_ms
            if silent and group.members.get(member.member_id) is member:
                self._remove(group, member, now_ms)

    def _drop_unsynced(self, group: Group, now_ms: int) -> None:
        for member in [m for m in group.members.values() if not m.synced]:
            self._drop(group, member)
        self._prepare(group, now_ms)

    # -- administration ------------------------------------------------------------------------

    def delete(self, group_name: str) -> str:
        """Forget a group without members. Error name."""
        group = self.groups.get(group_name)
        if group is None:
            return "group_id_not_found"
        if group.members:
            return "non_empty_group"
        del self.groups[group_name]
        return "none"

    def ensure(self, group_name: str) -> None:
        """A group that exists by its offsets alone."""
        self.groups.setdefault(group_name, Group(group_name))

    def _reply(self, token: Token, answer: JoinAnswer | SyncAnswer) -> None:
        self._replies.append(Reply(token, answer))

    def _drain(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies


def _is_watched(member: Member) -> bool:
    """Members that wait for an answer of ours cannot send heartbeats."""
    return member.join_token is None and member.sync_token is None


def _is_same(member: Member, request: JoinRequest) -> bool:
    if request.instance_id is not None:
        return member.instance_id == request.instance_id
    return member.member_id == request.member_id
