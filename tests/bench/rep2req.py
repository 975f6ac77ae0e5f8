# SPDX-License-Identifier: MIT
"""A proxy that behaves as pyzmqrpc3's Rep2Req does: a REP and a REQ socket, string frames, one request at a time, the
server's reply thrown away, and a JSON status for the caller. What proxyd replaces, as a reference.

    rep2req.py FRONTEND BACKEND
"""
import json
import sys

import zmq

HEARTBEAT = "zmq_sub_heartbeat"
TIMEOUT_MS = 5000


def new_request_socket(context, endpoint):
    socket = context.socket(zmq.REQ)
    socket.linger = 0
    socket.connect(endpoint)
    return socket


def main():
    frontend, backend = sys.argv[1:]
    context = zmq.Context()
    replies = context.socket(zmq.REP)
    replies.bind(frontend)
    requests = new_request_socket(context, backend)
    incoming = zmq.Poller()
    incoming.register(replies, zmq.POLLIN)
    print("ready", flush=True)
    while True:
        if not dict(incoming.poll(1000)):
            continue
        frame = replies.recv_string()
        if frame == HEARTBEAT:
            replies.send_string(json.dumps({"status_code": 200, "status_message": "OK"}))
            continue
        requests.send_string(frame)
        answers = zmq.Poller()
        answers.register(requests, zmq.POLLIN)
        if dict(answers.poll(TIMEOUT_MS)):
            requests.recv_string()
            status = {"status_code": 200, "status_message": "OK"}
        else:
            requests.close()
            requests = new_request_socket(context, backend)
            status = {"status_code": 482, "status_message": "timeout"}
        replies.send_string(json.dumps(status))


main()
