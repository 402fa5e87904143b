"""The clients from PyPI: `clients.py <client> <base> <run>` prints the events received, as JSON.

None of them reconnects, so the loop below is the one that their users write.
"""

import json
import sys

import httpx
import httpx_sse
import sseclient
from openai._streaming import SSEDecoder

SCENES = ["shapes", "pings", "gap", "snapshot", "resume"]

CLIENTS = {
    "httpx-sse": lambda response: httpx_sse.EventSource(response).iter_sse(),
    "sseclient-py": lambda response: sseclient.SSEClient(response.iter_bytes()).events(),
    # The decoder of its `Stream`, before that parses the data as JSON.
    "openai": lambda response: SSEDecoder().iter_bytes(response.iter_bytes()),
}


def read(http, url, events_of):
    events = []
    last = ""
    while True:
        headers = {"last-event-id": last} if last else {}
        with http.stream("GET", url, headers=headers) as response:
            if response.status_code == 204:
                return events
            try:
                for event in events_of(response):
                    events.append(
                        {
                            "type": event.event or "message",
                            "data": event.data,
                            "lastEventId": event.id or "",
                        }
                    )
                    last = event.id or last
            except httpx.RemoteProtocolError:
                pass  # Cut.


def main():
    client, base, run = sys.argv[1:]
    with httpx.Client(timeout=60) as http:
        transcript = {
            scene: read(http, f"{base}/{scene}?run={run}", CLIENTS[client])
            for scene in SCENES
        }
    json.dump(transcript, sys.stdout)


main()
