//! The clients from crates.io: `interop-clients <client> <base> <run>` prints the events that the
//! client received, as JSON.

use std::error::Error;

use eventsource_stream::{Event, EventStreamError, Eventsource};
use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest_eventsource::EventSource;
use serde_json::{Map, Value, json};

const SCENES: [&str; 5] = ["shapes", "pings", "gap", "snapshot", "resume"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, base, run] = &arguments[..] else {
        return Err("three arguments".into());
    };
    let mut transcript = Map::new();
    for scene in SCENES {
        let url = format!("{base}/{scene}?run={run}");
        let events = match client.as_str() {
            "eventsource-stream" => parse(&url).await?,
            "reqwest-eventsource" => read(&url).await?,
            _ => return Err("no such client".into()),
        };
        transcript.insert(scene.to_owned(), Value::Array(events));
    }
    println!("{}", Value::Object(transcript));
    Ok(())
}

fn seen(event: &Event) -> Value {
    json!({ "type": event.event, "data": event.data, "lastEventId": event.id })
}

/// This crate only parses, so this is the reconnect loop that its users write.
async fn parse(url: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let client = reqwest::Client::new();
    let mut events = Vec::new();
    let mut last = String::new();
    loop {
        let mut request = client.get(url);
        if !last.is_empty() {
            request = request.header("last-event-id", &last);
        }
        let response = request.send().await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(events);
        }
        let mut stream = response.bytes_stream().eventsource();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    events.push(seen(&event));
                    if !event.id.is_empty() {
                        last = event.id;
                    }
                }
                // The connection broke.
                Err(EventStreamError::Transport(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn read(url: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    use reqwest_eventsource::{Error, Event};

    let mut source = EventSource::get(url);
    let mut events = Vec::new();
    while let Some(event) = source.next().await {
        match event {
            Ok(Event::Open) => {}
            Ok(Event::Message(event)) => events.push(seen(&event)),
            // The client reconnects after these errors.
            Err(Error::StreamEnded | Error::Transport(_)) => {}
            // It does not reconnect after a 204.
            Err(Error::InvalidStatusCode(StatusCode::NO_CONTENT, _)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(events)
}
