"""A service that dies at once, for ever: started now and then, and it fills nothing."""

from slapos.node.supervise.events import ProcessEvents
from slapos.node.supervise.restarts import Restarts
from tests.fakes import FakeClock
from tests.integration.node.supervise.supervised import Partitions
from tests.integration.node.world import World, until

WEB = "web-on-watch"


def hear_of_its_end(restarts: Restarts, events: ProcessEvents, clock: FakeClock) -> None:
    ended = False
    while not ended:
        come = events.wait(20.0)
        assert come
        for event in come:
            restarts.take(event, clock.monotonic())
            ended = ended or event.event == "EXITED"


def test_an_hour_of_it_is_some_sixty_starts_and_little_on_disk(partitions: Partitions) -> None:
    partitions.service("web", "head -c 20000 /dev/zero | tr '\\0' x; exit 1")
    restarts, clock, starts = Restarts(), FakeClock(), 0
    log = partitions.root / "var" / "log" / "supervisord.log"
    with ProcessEvents(partitions.layout.node_socket) as events:
        partitions.run()
        hear_of_its_end(restarts, events, clock)
        size = log.stat().st_size
        while (due := restarts.next_due or 0.0) < 3600:
            clock.advance(due - clock.monotonic())
            due_now = restarts.due(clock.monotonic())
            starts += len(due_now)
            partitions.supervisor.start(due_now)
            hear_of_its_end(restarts, events, clock)
    assert starts == 6 + 58
    # It rotates at 50 MB: this is how often that is.
    assert (log.stat().st_size - size) / starts < 1000
    output = partitions.layout.output("slappart0")
    assert sum(path.stat().st_size for path in output.iterdir()) < 4 * 131072


def test_a_person_can_stop_it_between_two_starts(world: World) -> None:
    world.release(world.installing("web", "#!/bin/sh\nexit 1\n"))
    world.want()
    world.run("instance")
    until(
        lambda: (
            f"{WEB}" in (shown := world.run("status", "--processes").stdout) and "EXITED" in shown
        )
    )
    answer = world.run("stop", "slappart0:*")
    assert f"slappart0:{WEB}: it had ended, and is not started again" in answer.stdout
    world.run("instance")
    assert "STOPPED" in world.run("status", "--processes").stdout
    world.run("start", "slappart0:*")
    until(lambda: "EXITED" in world.run("status", "--processes").stdout)
