//! The IO type over a pipe, in paused time.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    Shutdown,
    connection::{self, Peer},
    lifetime::{access::Revocations, end::StreamEnd},
};

const STALL: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A pipe that takes eight bytes until somebody reads, and its other end.
fn pipe(options: &Options) -> (StreamIo<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(8);
    let open = options.connections().add();
    (StreamIo::new(ours, options, open), theirs)
}

/// Polls a read once, as hyper does with every poll of a connection.
async fn look(io: &mut StreamIo<DuplexStream>) -> Poll<io::Result<()>> {
    let mut bytes = [0; 64];
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut bytes);
        Poll::Ready(Pin::new(&mut *io).poll_read(cx, &mut buf))
    })
    .await
}

/// Reads on and on, and ends with the error or the end that it met.
async fn read(io: &mut StreamIo<DuplexStream>) -> io::Result<()> {
    let mut bytes = [0; 64];
    while io.read(&mut bytes).await? > 0 {}
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_byte_is_cut_after_the_stall_timeout() {
    let (mut io, _theirs) = pipe(&Options::new());
    let begun = Instant::now();
    let error = io.write_all(&[0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), STALL);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_some_bytes_now_and_then_is_not() {
    let (mut io, mut theirs) = pipe(&Options::new());
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        while all.len() < 80 {
            sleep(STALL - SECOND).await;
            let mut bytes = [0; 8];
            let n = theirs.read(&mut bytes).await.unwrap();
            all.extend_from_slice(&bytes[..n]);
        }
        theirs
    });
    io.write_all(&[7; 80]).await.unwrap();
    let mut theirs = reader.await.unwrap();
    // The same alarm serves the next stall, in full.
    let begun = Instant::now();
    io.write_all(&[7; 9]).await.unwrap_err();
    assert_eq!(begun.elapsed(), STALL);
    theirs.read_u8().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_while_there_is_nothing_to_write_is_no_stall() {
    let (mut io, mut theirs) = pipe(&Options::new());
    io.write_all(b"12345678").await.unwrap();
    let mut byte = [0];
    timeout(100 * STALL, io.read(&mut byte)).await.unwrap_err();
    theirs.write_u8(1).await.unwrap();
    assert_eq!(io.read(&mut byte).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_fails_a_second_after_its_stream_had_to_end() {
    // In a task, as a connection is: that is how the two find each other.
    let task = tokio::spawn(async {
        let shutdown = Shutdown::new();
        let (mut io, _theirs) = pipe(&Options::new());
        assert!(look(&mut io).await.is_pending());
        let life = StreamEnd::new(Some(&shutdown), None, Revocations::default(), 0.0);
        let life = Arc::new(life.unwrap());
        connection::carries(&life, None);
        let begun = Instant::now();
        tokio::spawn(async move {
            sleep(10 * SECOND).await;
            shutdown.begin();
        });
        let error = io.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), 11 * SECOND);
    });
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_stream_that_has_ended_has_a_second() {
    let task = tokio::spawn(async {
        let (mut io, mut theirs) = pipe(&Options::new());
        assert!(look(&mut io).await.is_pending());
        let deadline = Instant::now() + 5 * SECOND;
        let life = StreamEnd::new(None, Some(deadline), Revocations::default(), 0.0);
        let life = Arc::new(life.unwrap());
        connection::carries(&life, None);
        // Its body is gone, its last bytes are not.
        let gone = Arc::downgrade(&life);
        drop(life);
        assert!(gone.upgrade().is_some());
        io.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(Instant::now(), deadline + SECOND);

        // Once they are, nothing cuts what comes after.
        let mut bytes = [0; 8];
        theirs.read_exact(&mut bytes).await.unwrap();
        io.flush().await.unwrap();
        assert!(gone.upgrade().is_none());
        let begun = Instant::now();
        io.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(begun.elapsed(), STALL);
    });
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_finds_the_connection_of_its_own_task_only() {
    let life = || {
        let due = Instant::now();
        Arc::new(StreamEnd::new(None, Some(due), Revocations::default(), 0.0).unwrap())
    };
    let task = tokio::spawn(async move {
        let (mut one, _theirs) = pipe(&Options::new());
        assert!(look(&mut one).await.is_pending());
        // A stream of HTTP/2 has a task of its own.
        let other = life();
        tokio::spawn({
            let other = other.clone();
            async move { drop(connection::carries(&other, None)) }
        })
        .await
        .unwrap();
        assert_eq!(Arc::strong_count(&other), 1);

        // Two connections in one task cannot be told apart.
        let (mut two, _theirs) = pipe(&Options::new());
        assert!(look(&mut two).await.is_pending());
        let neither = life();
        connection::carries(&neither, None);
        assert_eq!(Arc::strong_count(&neither), 1);

        // But when one has moved on to another task, they can.
        let moved = tokio::spawn(async move {
            assert!(look(&mut two).await.is_pending());
            let its = life();
            connection::carries(&its, None);
            assert_eq!(Arc::strong_count(&its), 2);
            two
        });
        let two = moved.await.unwrap();
        drop((one, two));
    });
    task.await.unwrap();
}

/// A connection of HTTP/2, whose preface has arrived.
async fn http_2(options: &Options) -> (StreamIo<DuplexStream>, DuplexStream) {
    let (mut io, mut theirs) = pipe(options);
    // However it arrives.
    for byte in b"PRI * H" {
        theirs.write_u8(*byte).await.unwrap();
        assert!(look(&mut io).await.is_ready());
    }
    assert!(look(&mut io).await.is_pending());
    (io, theirs)
}

/// How long after the beginning of the shutdown the connection failed. The peer answers the
/// server's PING, or is dead.
async fn held_up(
    shutdown: &Shutdown,
    io: &mut StreamIo<DuplexStream>,
    theirs: &mut DuplexStream,
    answers: bool,
) -> Option<Duration> {
    let begun = Instant::now();
    shutdown.begin();
    let answer = async {
        sleep(SECOND / 10).await;
        if answers {
            theirs.write_u8(0).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! {
        failed = timeout(60 * SECOND, read(io)) => failed,
        () = answer => unreachable!(),
    };
    failed.ok().map(|result| {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    })
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_is_cut_after_a_shutdown_if_its_peer_is_silent() {
    for drain in [Duration::ZERO, 5 * SECOND] {
        let shutdown = Shutdown::draining(drain);
        let options = Options::new().shutdown(shutdown.clone());
        let (mut io, mut theirs) = http_2(&options).await;
        let took = held_up(&shutdown, &mut io, &mut theirs, false).await;
        assert_eq!(took, Some(drain + SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_is_cut_after_a_shutdown_if_it_carries_a_stuck_stream() {
    for named in [true, false] {
        let shutdown = Shutdown::new();
        let options = Options::new().shutdown(shutdown.clone());
        let (mut io, mut theirs) = http_2(&options).await;
        let life = StreamEnd::new(Some(&shutdown), None, Revocations::default(), 0.0);
        let life = Arc::new(life.unwrap());
        let _stuck = named.then(|| {
            io.connection().is_named();
            connection::carries(&life, Some(Peer::on_http_2(io.connection())))
        });
        let took = held_up(&shutdown, &mut io, &mut theirs, true).await;
        assert_eq!(took, Some(SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_without_a_stream_is_left_alone() {
    let shutdown = Shutdown::new();
    let options = Options::new().shutdown(shutdown.clone());
    // Requests that are no streams may take their time.
    let (mut io, mut theirs) = http_2(&options).await;
    let took = held_up(&shutdown, &mut io, &mut theirs, true).await;
    assert_eq!(took, None);

    // Even beside a stuck stream, if it is known that this is another connection's.
    let _stuck = shutdown.wait_as_stream();
    let (mut io, mut theirs) = http_2(&options).await;
    io.connection().is_named();
    let took = held_up(&shutdown, &mut io, &mut theirs, true).await;
    assert_eq!(took, None);

    // Where that is not known, what moves may go on.
    let (mut io, mut theirs) = http_2(&options).await;
    let moving = tokio::spawn(async move {
        for _ in 0..100 {
            sleep(SECOND / 4).await;
            theirs.write_u8(0).await.unwrap();
        }
        theirs
    });
    let begun = Instant::now();
    let failed = timeout(1000 * SECOND, read(&mut io)).await.unwrap();
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= 25 * SECOND, "{:?}", begun.elapsed());
    moving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_that_cannot_write_is_cut_too() {
    let shutdown = Shutdown::new();
    let options = Options::new().shutdown(shutdown.clone());
    let (mut io, _theirs) = http_2(&options).await;
    let begun = Instant::now();
    shutdown.begin();
    // Nobody reads here: the server has bytes to write first.
    let error = io.write_all(&[0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn never_is_a_stall_timeout() {
    let (mut io, _theirs) = pipe(&Options::new().stall_timeout(Duration::MAX));
    let write = io.write_all(&[0; 9]);
    timeout(Duration::from_secs(3600), write).await.unwrap_err();
}

/// Layers upon layers: each has something to say on when the stream ends.
#[tokio::test(start_paused = true)]
async fn the_first_of_several_ends_cuts() {
    for order in [[5, 50], [50, 5]] {
        let task = tokio::spawn(async move {
            let (mut io, _theirs) = pipe(&Options::new());
            assert!(look(&mut io).await.is_pending());
            let begun = Instant::now();
            let lives = order.map(|seconds| {
                let due = Some(begun + seconds * SECOND);
                let life = StreamEnd::new(None, due, Revocations::default(), 0.0);
                let life = Arc::new(life.unwrap());
                drop(connection::carries(&life, None));
                life
            });
            io.write_all(&[0; 9]).await.unwrap_err();
            assert_eq!(begun.elapsed(), 6 * SECOND);
            drop(lives);
        });
        task.await.unwrap();
    }
}

/// A connection on which this has arrived.
async fn http_1(options: &Options, first: &str) -> (StreamIo<DuplexStream>, DuplexStream) {
    let (mut io, mut theirs) = pipe(options);
    for part in first.as_bytes().chunks(8) {
        theirs.write_all(part).await.unwrap();
        assert!(look(&mut io).await.is_ready());
    }
    assert!(look(&mut io).await.is_pending());
    (io, theirs)
}

/// Whole heads, with nothing behind them that would be another's.
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 90\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn an_http_1_connection_is_not_taken_for_one() {
    for first in [GET, "PROPFIND / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\n\n"] {
        let shutdown = Shutdown::new();
        let options = Options::new().shutdown(shutdown.clone());
        let (mut io, mut theirs) = http_1(&options, first).await;
        let _open = shutdown.wait_as_stream();
        let took = held_up(&shutdown, &mut io, &mut theirs, false).await;
        assert_eq!(took, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_cut_after_a_shutdown() {
    for drain in [Duration::ZERO, 5 * SECOND] {
        for before in ["", GET] {
            for half in [
                "\r\n",
                "P",
                "PR",
                "POST",
                "G",
                &GET[..GET.len() - 1],
                &POST[..POST.len() - 1],
            ] {
                let shutdown = Shutdown::draining(drain);
                let options = Options::new().shutdown(shutdown.clone());
                let (mut io, mut theirs) = http_1(&options, &format!("{before}{half}")).await;
                sleep(100 * SECOND).await;
                let took = held_up(&shutdown, &mut io, &mut theirs, false).await;
                assert_eq!(took, Some(drain + SECOND), "{before:?} {half:?}");
            }
        }
    }
}

/// Byte after byte makes it no longer, and one that begins too late has its second.
#[tokio::test(start_paused = true)]
async fn a_head_has_a_second_after_a_shutdown() {
    let shutdown = Shutdown::new();
    let options = Options::new().shutdown(shutdown.clone());
    let (mut io, mut theirs) = http_1(&options, "").await;
    shutdown.begin();
    let slow = tokio::spawn(async move {
        sleep(30 * SECOND).await;
        for byte in GET.bytes() {
            if theirs.write_u8(byte).await.is_err() {
                break;
            }
            sleep(SECOND / 10).await;
        }
    });
    let begun = Instant::now();
    assert!(read(&mut io).await.is_err());
    assert_eq!(begun.elapsed(), 31 * SECOND);
    drop(io);
    slow.await.unwrap();

    let (mut io, mut theirs) = http_1(&options, "GET / HTTP/1.1\r\n").await;
    let rest = tokio::spawn(async move {
        sleep(SECOND / 2).await;
        theirs.write_all(b"\r\n").await.unwrap();
        theirs
    });
    timeout(100 * SECOND, read(&mut io)).await.unwrap_err();
    rest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_head_is_cut_without_a_shutdown_and_no_body_with_one() {
    let shutdown = Shutdown::new();
    let with = Options::new().shutdown(shutdown.clone());
    for (options, first) in [
        (&Options::new(), "G"),
        (&Options::new(), "P"),
        (&with, ""),
        (&with, GET),
        (&with, POST),
        (&with, &format!("{POST}half of it")),
        (&with, "\x16\x03\x01"),
    ] {
        let (mut io, mut theirs) = http_1(options, first).await;
        let took = held_up(&shutdown, &mut io, &mut theirs, false).await;
        assert_eq!(took, None, "{first:?}");
    }
}

/// The answer to the first request may take its time, whatever the client has sent since.
#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_is_not_cut_for_the_next_head() {
    let shutdown = Shutdown::new();
    let options = Options::new().shutdown(shutdown.clone());
    let (mut io, _theirs) = http_1(&options, &format!("{GET}G")).await;
    let begun = Instant::now();
    shutdown.begin();
    io.write_all(&[0; 9]).await.unwrap_err();
    assert_eq!(begun.elapsed(), STALL);
}

#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn connections_that_a_shutdown_does_not_end_are_warned_of() {
    let warnings = crate::testing::logged::Logged::new(tracing::Level::WARN);
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let logged = || warnings.take();
    let no_layer = "give the `Shutdown` to `SseLayer::shutdown` too";
    for (begun_elsewhere, drain, with_layer, what) in [
        // First, while the clock of other threads has not been left behind.
        (true, 0, false, no_layer),
        (false, 0, false, no_layer),
        (false, 0, true, "is still being answered"),
        (false, 20, false, no_layer),
    ] {
        let shutdown = Shutdown::draining(drain * SECOND);
        let layer = with_layer.then(|| crate::SseLayer::new().shutdown(shutdown.clone()));
        let options = Options::new().shutdown(shutdown.clone());
        let (one, two) = (pipe(&options), pipe(&options));
        if begun_elsewhere {
            // Where there is no runtime; the server's signal ends within one.
            let shutdown = shutdown.clone();
            let elsewhere = std::thread::spawn(move || shutdown.begin());
            elsewhere.join().unwrap();
        }
        let signal = std::future::ready(());
        shutdown.on(signal).await;
        shutdown.begin();
        sleep((drain + 4) * SECOND).await;
        assert_eq!(logged(), [""; 0]);
        drop(one);
        sleep(2 * SECOND).await;
        let [warning] = &logged()[..] else {
            panic!("there is one warning");
        };
        assert!(warning.contains(what), "{warning}");
        assert!(warning.contains("connections: 1;"), "{warning}");
        sleep(100 * SECOND).await;
        assert_eq!(logged(), [""; 0]);
        drop((two, layer));
    }
    // Nor where all are closed in time.
    let shutdown = Shutdown::new();
    let options = Options::new().shutdown(shutdown.clone());
    let open = pipe(&options);
    shutdown.begin();
    sleep(SECOND).await;
    drop(open);
    sleep(100 * SECOND).await;
    assert_eq!(logged(), [""; 0]);
}
