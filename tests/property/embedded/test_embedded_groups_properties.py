"""Groups under random schedules of joins, leaves, syncs, lost replies and passing time."""

from __future__ import annotations

from collections import defaultdict
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from streams.embedded.groups import Groups, GroupState, JoinAnswer, JoinRequest, Reply, SyncAnswer
from streams.embedded.settings import LogSettings

PARTITIONS = 6
CLIENTS = 4
SETTINGS = LogSettings(group_initial_delay_ms=100, session_timeout_ms_min=1_000)


class Client:
    """A well-behaved member: joins, assigns if it leads, syncs, beats. May be static."""

    def __init__(self, number: int) -> None:
        self.instance = f"static-{number}" if number == 0 else None
        self.member_id = ""
        self.joined: JoinAnswer | None = None
        self.waits_for = -1
        self.owns: tuple[int, frozenset[int]] | None = None

    def forget(self) -> None:
        self.member_id, self.joined, self.owns, self.waits_for = "", None, None, -1


class Schedule:
    """Runs clients against the machine and checks what must hold in every step."""

    def __init__(self) -> None:
        ids = count(1)
        self.groups = Groups(SETTINGS, self._generation, None, lambda: str(next(ids)))
        self.clients = [Client(number) for number in range(CLIENTS)]
        self.now = 0
        self.tokens = count(1)
        self.owner_of: dict[int, int] = {}
        self.generations: list[int] = []
        self.owners: dict[tuple[int, int], str] = {}
        self.open: set[int] = set()

    def _generation(self, _group: str, generation: int, _kind: str) -> None:
        assert not self.generations or generation > self.generations[-1], "a generation was given out twice"
        self.generations.append(generation)

    def _token(self, client: int) -> int:
        token = next(self.tokens)
        self.owner_of[token] = client
        self.open.add(token)
        self.clients[client].waits_for = token
        return token

    def deliver(self, replies: list[Reply], *, lost: bool = False) -> None:
        for reply in replies:
            assert isinstance(reply.token, int)
            assert reply.token in self.open, "a request was answered twice"
            self.open.discard(reply.token)
            client = self.clients[self.owner_of[reply.token]]
            if lost or client.waits_for != reply.token:
                continue
            client.waits_for = -1
            if isinstance(reply.answer, JoinAnswer):
                self._joined(client, reply.answer)
            else:
                self._synced(client, reply.answer)

    def _joined(self, client: Client, answer: JoinAnswer) -> None:
        client.joined = None
        if answer.error == "none":
            client.member_id, client.joined = answer.member_id, answer
        elif answer.error == "member_id_required":
            client.member_id = answer.member_id
        elif answer.error in ("unknown_member_id", "fenced_instance_id"):
            client.forget()

    def _synced(self, client: Client, answer: SyncAnswer) -> None:
        joined = client.joined
        if answer.error != "none" or joined is None:
            client.joined = None
            if answer.error in ("unknown_member_id", "fenced_instance_id"):
                client.forget()
            return
        client.owns = (joined.generation, frozenset(answer.assignment))
        for partition in answer.assignment:
            owner = self.owners.setdefault((joined.generation, partition), client.member_id)
            # A static member takes its place over under a new id.
            same = owner == client.member_id or (client.instance and owner.startswith(client.instance))
            assert same, f"partition {partition} has two owners in generation {joined.generation}"

    # -- what clients do -----------------------------------------------------------------------

    def join(self, number: int, *, lost: bool = False) -> None:
        client = self.clients[number]
        client.joined = None
        request = JoinRequest(
            "g",
            client.member_id,
            client.instance,
            f"c{number}",
            "h",
            "consumer",
            (("range", b""),),
            3_000,
            5_000,
            True,
        )
        self.deliver(self.groups.join(request, self._token(number), self.now), lost=lost)

    def sync(self, number: int, *, lost: bool = False) -> None:
        client = self.clients[number]
        joined = client.joined
        if joined is None:
            return
        assignments: dict[str, bytes] = {}
        if joined.leader == joined.member_id:
            dealt: defaultdict[str, list[int]] = defaultdict(list)
            for partition in range(PARTITIONS):
                dealt[joined.members[partition % len(joined.members)].member_id].append(partition)
            assignments = {member: bytes(owned) for member, owned in dealt.items()}
        replies = self.groups.sync(
            "g",
            client.member_id,
            client.instance,
            joined.generation,
            assignments,
            self._token(number),
            self.now,
        )
        self.deliver(replies, lost=lost)

    def beat(self, number: int) -> None:
        client = self.clients[number]
        if client.joined is None:
            return
        error = self.groups.heartbeat(
            "g", client.member_id, client.instance, client.joined.generation, self.now
        )
        if error == "rebalance_in_progress":
            client.joined = None
        elif error != "none":
            client.forget()

    def leave(self, number: int) -> None:
        client = self.clients[number]
        if client.member_id:
            self.deliver(self.groups.leave("g", client.member_id, client.instance, self.now)[1])
        client.forget()

    def restart(self, number: int) -> None:
        """The process dies without a word; its successor knows nothing."""
        self.clients[number].forget()

    def wait(self, ms: int) -> None:
        self.now += ms
        self.deliver(self.groups.tick(self.now))

    def settle(self) -> None:
        """From now on everybody behaves: the group must become stable with every partition owned once."""
        for _ in range(60):
            for number, client in enumerate(self.clients):
                if client.waits_for >= 0:
                    continue
                if client.joined is None:
                    self.join(number)
                elif client.owns is None or client.owns[0] != client.joined.generation:
                    self.sync(number)
                else:
                    self.beat(number)
            self.wait(500)
        group = self.groups.groups["g"]
        assert group.state is GroupState.STABLE
        assert len(group.members) == CLIENTS
        owned = [p for c in self.clients if c.owns and c.owns[0] == group.generation for p in c.owns[1]]
        assert sorted(owned) == list(range(PARTITIONS))
        deadline = self.groups.next_deadline()
        assert deadline is not None
        assert deadline > self.now - 500


ACTIONS = st.one_of(
    st.tuples(st.just("join"), st.integers(0, CLIENTS - 1), st.booleans()),
    st.tuples(st.just("sync"), st.integers(0, CLIENTS - 1), st.booleans()),
    st.tuples(st.sampled_from(["beat", "leave", "restart"]), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("wait"), st.integers(1, 4_000)),
)


@given(st.lists(ACTIONS, max_size=80))
def test_one_owner_in_each_generation_and_every_group_settles(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    schedule = Schedule()
    for name, argument, *lost in actions:
        if name in ("join", "sync"):
            getattr(schedule, name)(argument, lost=lost[0])
        else:
            getattr(schedule, name)(argument)
        # A client whose answer was lost gives up waiting.
        for client in schedule.clients:
            if client.waits_for >= 0 and client.waits_for not in schedule.open:
                client.waits_for = -1
                client.joined = None
    schedule.settle()
