# SPDX-License-Identifier: MIT
"""rep-pub: a request becomes a publication, and its caller is told once it is handed to PUB."""
import zmq

from harness import eventually
from peers import error_of, outcomes


def test_every_ack_is_one_publication_unchanged_and_in_order(net):
    news = net.chain("rep-pub")
    proxyd = net.proxyd(news)
    caller = net.caller(news)
    subscriber = net.subscriber(news).wait_joined(lambda: caller.call(b"probe"))
    probes = proxyd.chain(news)["delivered"]
    bodies = [[b"t%d" % n, b"", bytes([n]), b"\xff\0"] for n in range(50)]
    for body in bodies:
        assert caller.call(*body) == [b"accepted"]
    assert subscriber.take(50) == bodies
    assert subscriber.poll(0.05) is None
    proxyd.wait_for(news, accepted=probes + 50, delivered=probes + 50, state="up")


def test_subscribers_filter_by_topic(net):
    news = net.chain("rep-pub")
    net.proxyd(news)
    caller = net.caller(news)
    everything = net.subscriber(news).wait_joined(lambda: caller.call(b"probe"))
    weather = net.subscriber(news, b"weather").wait_joined(lambda: caller.call(b"weather probe"))
    while everything.poll(0.05):
        pass
    for topic in (b"sport", b"weather", b"sports", b"weather.local"):
        caller.call(topic, b"data")
    assert everything.take(4)[0] == [b"sport", b"data"]
    assert weather.take(2) == [[b"weather", b"data"], [b"weather.local", b"data"]]


def test_an_ack_needs_no_subscriber(net):
    news = net.chain("rep-pub")
    proxyd = net.proxyd(news)
    pipeline = net.pipeline(news)
    pipeline.send_each([b"%d" % n for n in range(100)])
    assert set(map(tuple, pipeline.wait().values())) == {(b"accepted",)}
    proxyd.wait_for(news, accepted=100, delivered=100)


def test_a_paused_chain_keeps_requests_and_publishes_them_in_order(net):
    news = net.chain("rep-pub", queue={"max_messages": 5})
    proxyd = net.proxyd(news)
    pipeline = net.pipeline(news)
    subscriber = net.subscriber(news).wait_joined(lambda: pipeline.call(b"probe"))
    pipeline.answers.clear()
    proxyd.control("pause", news.name)
    tags = [pipeline.send(b"%d" % n) for n in range(7)]
    proxyd.wait_for(news, queued=5, state="paused")
    eventually(lambda: len(pipeline.drain().answers) == 2)
    proxyd.control("resume", news.name)
    eventually(lambda: len(pipeline.drain().answers) == 7)
    answers = pipeline.only_answers()
    assert [error_of(answers[tag]) for tag in tags] == [None] * 5 + [(503, "queue-full")] * 2
    assert subscriber.take(5) == [[b"%d" % n] for n in range(5)]


def test_a_refused_request_is_never_published(net):
    news = net.chain("rep-pub", frontend={"max_message": "1KiB"})
    proxyd = net.proxyd(news)
    caller = net.caller(news)
    subscriber = net.subscriber(news).wait_joined(lambda: caller.call(b"probe"))
    assert error_of(caller.call(bytes(1500))) == (413, "too-large")
    caller.call(b"end")
    assert subscriber.receive() == [b"end"]
    proxyd.wait_for(news, failed={"too-large": 1})


def test_a_bound_subscriber_is_published_to(net):
    """`>` makes the backend connect."""
    endpoint = net.endpoint()
    subscriber = net.subscriber(endpoint, bind=True)
    news = net.chain("rep-pub", to=">" + endpoint)
    net.proxyd(news)
    caller = net.caller(news)
    subscriber.wait_joined(lambda: caller.call(b"probe"))


def test_several_places_to_publish_at_get_the_same(net):
    news = net.chain("rep-pub", to=[net.endpoint(), net.ipc("news")])
    net.proxyd(news)
    caller = net.caller(news)
    subscribers = [net.subscriber(place) for place in news.to]
    for subscriber in subscribers:
        subscriber.wait_joined(lambda: caller.call(b"probe"))
    for subscriber in subscribers:
        while subscriber.poll(0.05):
            pass
    caller.call(b"to all")
    assert [subscriber.receive() for subscriber in subscribers] == [[b"to all"]] * 2


def test_inproc_joins_two_chains(net):
    """A publication becomes a request to the rep-pub chain of the same daemon."""
    publisher = net.publisher()
    intake = net.chain("sub-req", at=publisher.endpoint, to="inproc://joint",
                       backend={"window": 1, "backoff": "10ms", "backoff_max": "50ms"})
    news = net.chain("rep-pub", at="inproc://joint")
    proxyd = net.proxyd(intake, news)
    publisher.wait_subscribed()
    subscriber = net.subscriber(news).wait_joined(lambda: publisher.publish(b"probe"))
    before = proxyd.chain(intake)["delivered"]
    for number in range(100):
        publisher.publish(b"%d" % number)
    assert subscriber.take(100) == [[b"%d" % number] for number in range(100)]
    proxyd.wait_for(intake, delivered=lambda count: count >= before + 100, queued=0, inflight=0, redelivered=0)
    assert proxyd.chain(news)["delivered"] == proxyd.chain(intake)["delivered"]


def test_callers_of_any_kind(net):
    news = net.chain("rep-pub")
    net.proxyd(news)
    deep = net.pipeline(news, depth=4)
    subscriber = net.subscriber(news).wait_joined(lambda: deep.call(b"probe"))
    requester = net.caller(news)
    assert requester.socket.type == zmq.REQ
    assert (deep.call(b"a", b"b"), requester.call(b"c")) == ([b"accepted"], [b"accepted"])
    assert sorted(subscriber.take(2)) == [[b"a", b"b"], [b"c"]]
    assert outcomes(deep.only_answers()) == {"reply": len(deep.answers)}
