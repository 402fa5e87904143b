//! Rules 59, 60, 68 and 69: limits, and requests that do not accept an event stream.

use std::collections::HashMap;

use futures_util::FutureExt;

use super::*;

fn user(request: &http::request::Parts) -> Option<String> {
    let user = request.headers.get("x-user")?;
    Some(user.to_str().ok()?.to_owned())
}

fn asks(user: Option<&str>) -> Request<Body> {
    let headers: Vec<_> = user.map(|user| ("x-user", user)).into_iter().collect();
    ask(Method::GET, &headers)
}

async fn open(limits: &Limits, user: Option<&str>) -> Answer {
    let layer = SseLayer::new().limits(limits.clone());
    through(layer, asks(user), event_stream(Watched::default().body())).await
}

fn counts(limits: &Limits) -> (usize, usize) {
    (limits.open(), limits.keys())
}

/// Whether the handler's stream is open. If not, this has to be the answer of rule 68.
fn is_open(answer: &mut Answer, after: Duration) -> bool {
    let mut expected = stream_head();
    assert_eq!(answer.status(), StatusCode::OK);
    let Poll::Ready(last) = poll(answer) else {
        assert_eq!(answer.headers(), &expected);
        return true;
    };
    expected.remove("connection");
    answer.headers_mut().remove("connection");
    assert_eq!(answer.headers(), &expected);
    let last = last.unwrap();
    let mut parser = Parser::new();
    parser.push(last.as_bytes());
    let millis = parser.retry().unwrap();
    assert_eq!(last, format!("retry: {millis}\n:\n"));
    let after = u64::try_from(after.as_millis()).unwrap();
    assert!((after..=2 * after).contains(&millis), "{millis}");
    assert_eq!(poll(answer), END);
    assert!(answer.body().is_end_stream());
    false
}

const FIVE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn rule_68_what_is_too_much_in_all_is_sent_away() {
    let limits = Limits::new().total(2);
    let mut one = open(&limits, None).await;
    let mut two = open(&limits, Some("ann")).await;
    assert!(is_open(&mut one, FIVE) && is_open(&mut two, FIVE));
    // Without `per_key`, streams have no key.
    assert_eq!(counts(&limits), (2, 0));
    let mut three = open(&limits, None).await;
    assert!(!is_open(&mut three, FIVE));
    assert_eq!(counts(&limits), (2, 0));
    drop(one);
    assert_eq!(counts(&limits), (1, 0));
    assert!(is_open(&mut open(&limits, None).await, FIVE));

    let none = Limits::new().total(0);
    assert!(!is_open(&mut open(&none, None).await, FIVE));
    let all = Limits::default();
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(open(&all, None).await);
    }
    assert!(answers.iter_mut().all(|answer| is_open(answer, FIVE)));
    assert_eq!(counts(&all), (100, 0));
}

#[tokio::test]
async fn rule_68_what_is_too_much_for_a_key_is_sent_away() {
    let limits = Limits::new().total(5).per_key(2, user);
    let mut table = Vec::new();
    for (who, expected, after) in [
        (Some("ann"), true, (1, 1)),
        (Some("ann"), true, (2, 1)),
        (Some("ann"), false, (2, 1)),
        (Some("bob"), true, (3, 2)),
        // A stream without a key counts for the total only.
        (None, true, (4, 2)),
        (None, true, (5, 2)),
        (None, false, (5, 2)),
        (Some("bob"), false, (5, 2)),
        (Some("eve"), false, (5, 2)),
    ] {
        let mut answer = open(&limits, who).await;
        assert_eq!(is_open(&mut answer, FIVE), expected, "{who:?}");
        assert_eq!(counts(&limits), after, "{who:?}");
        table.push(answer);
    }
    drop(table.remove(0));
    assert_eq!(counts(&limits), (4, 2));
    assert!(is_open(&mut open(&limits, Some("ann")).await, FIVE));
    drop(table);
    assert_eq!(counts(&limits), (0, 0));

    let none = Limits::new().per_key(0, user);
    assert!(!is_open(&mut open(&none, Some("ann")).await, FIVE));
    assert!(is_open(&mut open(&none, None).await, FIVE));
    assert_eq!(counts(&none), (0, 0));
}

#[tokio::test]
async fn rule_68_the_return_is_spread_and_within_what_was_asked_for() {
    let limits = |after| Limits::new().total(0).return_after(after);
    let mut times = Vec::new();
    for _ in 0..200 {
        let long = limits(Duration::from_secs(60));
        let mut answer = open(&long, None).await;
        let Poll::Ready(Some(last)) = poll(&mut answer) else {
            panic!();
        };
        let millis = last.strip_prefix("retry: ").unwrap();
        let millis: u64 = millis.strip_suffix("\n:\n").unwrap().parse().unwrap();
        assert!((60_000..=120_000).contains(&millis));
        times.push(millis);
    }
    times.sort_unstable();
    assert!(times[0] < 70_000 && times[199] > 110_000, "{times:?}");
    times.dedup();
    assert!(times.len() > 100, "{times:?}");
    let least = Duration::from_millis(500);
    assert!(!is_open(
        &mut open(&limits(Duration::ZERO), None).await,
        least
    ));
    let mut most = open(&limits(Duration::MAX), None).await;
    assert_eq!(poll(&mut most), chunk("retry: 86400000\n:\n"));
}

#[tokio::test]
async fn rule_68_a_stream_over_the_limit_is_dropped_unpolled() {
    for refuse in [false, true] {
        let limits = Limits::new().total(0);
        let limits = if refuse { limits.refuse() } else { limits };
        let watched = Watched::default();
        let layer = SseLayer::new().limits(limits);
        let response = foreign(
            &[
                ("content-type", "text/event-stream; charset=utf-8"),
                ("content-encoding", "gzip"),
                ("set-cookie", "of=the-handler"),
            ],
            watched.body(),
        );
        let (answer, calls) = counted(layer, asks(None), response).await;
        assert_eq!((calls, watched.polls(), watched.drops()), (1, 0, 1));
        assert!(!answer.headers().contains_key("set-cookie"));
        assert!(!answer.headers().contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn rule_68_clients_that_can_take_it_get_a_status() {
    let limits = Limits::new().total(1).per_key(0, user).refuse();
    for early in [false, true] {
        let limits = match early {
            true => limits.clone().before_handler(),
            false => limits.clone(),
        };
        let ann = open(&limits, Some("ann")).await;
        assert_eq!(ann.status(), StatusCode::TOO_MANY_REQUESTS);
        let mut first = open(&limits, None).await;
        assert!(is_open(&mut first, FIVE));
        let second = open(&limits, None).await;
        // The total is checked first, so the answer is not 429.
        let third = open(&limits, Some("ann")).await;
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
        for answer in [ann, second, third] {
            let [after] = values(&answer, "retry-after")[..] else {
                panic!("{:?}", answer.headers());
            };
            let after: u64 = after.parse().unwrap();
            assert!((5..=10).contains(&after), "{after}");
            assert_ne!(values(&answer, "content-type"), ["text/event-stream"]);
        }
    }
}

#[tokio::test]
async fn rule_69_a_place_is_free_again_whatever_ends_the_stream() {
    let limits = Limits::new().per_key(9, user);
    let layer = || SseLayer::new().limits(limits.clone());
    let ann = || asks(Some("ann"));

    // Its client disconnects, before the first poll and after.
    let answer = through(layer(), ann(), event_stream(by_hand().1)).await;
    assert_eq!(counts(&limits), (1, 1));
    drop(answer);
    assert_eq!(counts(&limits), (0, 0));
    let (_sender, body) = by_hand();
    let mut answer = through(layer(), ann(), event_stream(body)).await;
    assert_eq!(poll(&mut answer), Poll::Pending);
    assert_eq!(counts(&limits), (1, 1));
    drop(answer);
    assert_eq!(counts(&limits), (0, 0));

    // The stream ends (end, error, trailers) before the response is dropped.
    let error = stream::iter([Err::<Frame<Bytes>, _>(io::Error::other("mine"))]);
    let trailers = stream::iter([Ok::<_, io::Error>(Frame::<Bytes>::trailers(
        HeaderMap::new(),
    ))]);
    for body in [
        Body::from_stream(stream::empty::<Result<Bytes, io::Error>>()),
        Body::new(StreamBody::new(error.chain(stream::pending()))),
        Body::new(StreamBody::new(trailers.chain(stream::pending()))),
    ] {
        let mut answer = through(layer(), ann(), event_stream(body)).await;
        assert_eq!(counts(&limits), (1, 1));
        assert!(!matches!(answer.body_mut().frame().await, Some(Ok(frame)) if frame.is_data()));
        assert_eq!(counts(&limits), (0, 0));
        drop(answer);
        assert_eq!(counts(&limits), (0, 0));
    }

    // A shutdown.
    let shutdown = Shutdown::new();
    let (_sender, body) = by_hand();
    let ending = layer().shutdown(shutdown.clone());
    let mut answer = through(ending, ann(), event_stream(body)).await;
    assert_eq!(poll(&mut answer), Poll::Pending);
    shutdown.begin();
    assert!(poll(&mut answer).is_ready());
    // The last bytes may not have been written yet.
    assert_eq!(counts(&limits), (1, 1));
    drop(answer);
    assert_eq!(counts(&limits), (0, 0));
}

#[tokio::test]
async fn rule_56_head_and_what_is_no_stream_take_no_place() {
    for early in [false, true] {
        let limits = Limits::new().total(0).per_key(0, user).refuse();
        let limits = if early {
            limits.before_handler()
        } else {
            limits
        };
        let layer = || SseLayer::new().limits(limits.clone());
        let head = ask(Method::HEAD, &[("x-user", "ann")]);
        let (answer, calls) = counted(layer(), head, event_stream(by_hand().1)).await;
        assert_eq!((answer.status(), calls), (StatusCode::OK, 1));
        assert_eq!(answer.headers(), &stream_head());
        assert_eq!(counts(&limits), (0, 0));
        let options = ask(Method::OPTIONS, &[("x-user", "ann")]);
        let (answer, calls) = counted(layer(), options, StatusCode::NO_CONTENT).await;
        assert_eq!((answer.status(), calls), (StatusCode::NO_CONTENT, 1));
        if !early {
            for response in [
                Json(1).into_response(),
                StatusCode::NOT_FOUND.into_response(),
            ] {
                let status = response.status();
                let answer = through(layer(), asks(Some("ann")), response).await;
                assert_eq!(answer.status(), status);
                assert_eq!(counts(&limits), (0, 0));
            }
        }
    }
}

#[tokio::test]
async fn an_early_limit_never_runs_the_handler_when_full() {
    let limits = Limits::new().per_key(1, user).before_handler();
    let mut first = open(&limits, Some("ann")).await;
    assert!(is_open(&mut first, FIVE));
    assert_eq!(counts(&limits), (1, 1));
    let layer = || SseLayer::new().limits(limits.clone());
    let (mut answer, calls) = counted(layer(), asks(Some("ann")), StatusCode::NO_CONTENT).await;
    assert_eq!(calls, 0);
    assert!(!is_open(&mut answer, FIVE));
    drop(first);
    assert_eq!(counts(&limits), (0, 0));
    // The response is not a stream.
    for response in [
        Json(1).into_response(),
        StatusCode::NOT_FOUND.into_response(),
    ] {
        let (answer, calls) = counted(layer(), asks(Some("ann")), response).await;
        assert_eq!(calls, 1);
        assert_eq!(counts(&limits), (0, 0), "while the response lives");
        drop(answer);
    }
}

/// A handler that waits for a request body that never comes.
async fn waits_for(limits: &Limits) -> (impl Future<Output = Answer> + use<>, std::sync::Weak<()>) {
    let alive = Arc::new(());
    let handler_s = Arc::downgrade(&alive);
    let alive = std::sync::Mutex::new(Some(alive));
    let service = service_fn(move |_| {
        let alive = alive.lock().unwrap().take();
        async move {
            std::future::pending::<()>().await;
            drop(alive);
            Ok::<_, Infallible>(event_stream(Body::empty()))
        }
    });
    let layer = SseLayer::new().limits(limits.clone());
    let service = ServiceBuilder::new().layer(layer).service(service);
    let answer = service.oneshot(ask(Method::POST, &[("x-user", "ann")]));
    (answer.map(|Ok(answer)| answer), handler_s)
}

#[tokio::test(start_paused = true)]
async fn rule_68_an_early_place_is_kept_for_a_time_only() {
    let start = || tokio::time::Instant::now();
    let half_a_minute = Duration::from_secs(30);
    for within in [None, Some(FIVE)] {
        let mut limits = Limits::new().total(1).per_key(1, user).before_handler();
        limits = match within {
            None => limits,
            Some(time) => limits.answer_within(time),
        };
        let begun = start();
        let (slow, handler) = waits_for(&limits).await;
        let slow = tokio::spawn(slow);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(counts(&limits), (1, 1));
        assert!(!is_open(&mut open(&limits, None).await, FIVE));
        let hour = Duration::from_secs(3600);
        let mut slow = tokio::time::timeout(hour, slow).await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), within.unwrap_or(half_a_minute));
        assert!(!is_open(&mut slow, FIVE));
        assert!(handler.upgrade().is_none(), "the handler's future is gone");
        assert_eq!(counts(&limits), (0, 0));
        assert!(is_open(&mut open(&limits, None).await, FIVE));
    }

    let (slow, _) = waits_for(&Limits::new().before_handler().refuse()).await;
    let slow = slow.await;
    assert_eq!(slow.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(values(&slow, "retry-after").len(), 1);

    // Without `before_handler` there is no time limit.
    let late = Limits::new().total(1);
    let (slow, _) = waits_for(&late).await;
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, slow).await.is_err());
}

#[tokio::test]
async fn an_early_place_is_given_back_with_the_answer_and_with_the_request() {
    let limits = Limits::new().total(1).before_handler();
    let layer = SseLayer::new().limits(limits.clone());
    let service = service_fn(|_| async { Ok::<_, Infallible>(Json(1).into_response()) });
    let mut service = ServiceBuilder::new().layer(layer.clone()).service(service);
    // The future may be kept after it has completed. (`oneshot` would drop it.)
    let mut future = Box::pin(service.call(asks(None)));
    let answer: Result<Answer, Infallible> = future.as_mut().await;
    assert_eq!(limits.open(), 0);
    drop((answer, future));

    let service = service_fn(|_| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mut service = ServiceBuilder::new().layer(layer.clone()).service(service);
    let mut future = Box::pin(service.call(asks(None)));
    assert!((&mut future).now_or_never().is_none());
    assert_eq!(limits.open(), 1);
    drop(future);
    assert_eq!(limits.open(), 0);

    let impatient = SseLayer::new().limits(limits.clone().answer_within(Duration::ZERO));
    let service = service_fn(|_| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mut service = ServiceBuilder::new().layer(impatient).service(service);
    let mut future = Box::pin(service.call(asks(None)));
    let answer: Result<Answer, Infallible> = future.as_mut().await;
    assert_eq!(limits.open(), 0);
    drop((answer, future));

    let service = service_fn(|_| async { Err::<Response<Body>, _>("mine") });
    let mut service = ServiceBuilder::new().layer(layer).service(service);
    let mut future = Box::pin(service.call(asks(None)));
    assert!(future.as_mut().await.is_err());
    assert_eq!(limits.open(), 0);
}

#[tokio::test]
async fn clones_and_routes_under_one_layer_count_together() {
    let limits = Limits::new().total(2);
    let stream = async || event_stream(Watched::default().body());
    let app = Router::new()
        .route("/a", get(stream))
        .route("/b", get(stream))
        .route_layer(SseLayer::new().limits(limits.clone()));
    let other = Router::new()
        .route("/c", get(stream))
        .route_layer(SseLayer::new().limits(limits.clone()));
    let app = app.merge(other);
    let mut open = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let mut request = request(Version::HTTP_11);
        *request.uri_mut() = path.parse().unwrap();
        let mut response = app.clone().oneshot(request).await.unwrap();
        let frame = response.body_mut().frame().now_or_never();
        assert_eq!(frame.is_some(), path == "/c", "{path}");
        open.push(response);
    }
    assert_eq!(limits.clone().open(), 2);
    drop(open);
    assert_eq!(limits.open(), 0);
}

#[tokio::test]
async fn a_limit_of_one_is_not_passed_by_many_at_once() {
    let limits = Limits::new().total(7).per_key(2, user);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let limits = limits.clone();
        tasks.spawn(async move { open(&limits, Some(["ann", "bob", "eve"][n % 3])).await });
    }
    let mut answers = tasks.join_all().await;
    let open = answers
        .iter_mut()
        .filter_map(|a| is_open(a, FIVE).then_some(()));
    assert_eq!(open.count(), 6);
    assert_eq!(counts(&limits), (6, 3));
    drop(answers);
    assert_eq!(counts(&limits), (0, 0));
}

proptest! {
    #[test]
    fn rule_69_places_are_counted_as_a_model_counts_them(
        total in 0usize..6,
        per_key in 0usize..4,
        early: bool,
        steps in prop::collection::vec((any::<bool>(), 0usize..4, any::<prop::sample::Index>()), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let limits = Limits::new().total(total).per_key(per_key, user);
        let limits = if early { limits.before_handler() } else { limits };
        let mut open_ones: Vec<(Option<&str>, Answer)> = Vec::new();
        let mut of_key: HashMap<&str, usize> = HashMap::new();
        for (takes, who, which) in steps {
            if takes {
                let who = [None, Some("ann"), Some("bob"), Some("")][who];
                let of_it = who.map_or(0, |who| of_key.get(who).copied().unwrap_or(0));
                let free = open_ones.len() < total && (who.is_none() || of_it < per_key);
                let mut answer = runtime.block_on(open(&limits, who));
                prop_assert_eq!(is_open(&mut answer, FIVE), free);
                if free {
                    open_ones.push((who, answer));
                    if let Some(who) = who {
                        *of_key.entry(who).or_default() += 1;
                    }
                }
            } else if !open_ones.is_empty() {
                let (who, answer) = open_ones.swap_remove(which.index(open_ones.len()));
                drop(answer);
                if let Some(who) = who {
                    *of_key.get_mut(who).unwrap() -= 1;
                }
            }
            let keys = of_key.values().filter(|open| **open > 0).count();
            prop_assert_eq!(counts(&limits), (open_ones.len(), keys));
        }
        drop(open_ones);
        prop_assert_eq!(counts(&limits), (0, 0));
    }
}

#[tokio::test]
async fn rules_59_and_60_who_accepts_an_event_stream() {
    let table: [(&[&str], bool); 25] = [
        (&[], true),
        (&["*/*"], true),
        (&["text/*"], true),
        (&["text/event-stream"], true),
        (&["Text/Event-Stream"], true),
        (&["text/event-stream;q=0.1"], true),
        (&["text/event-stream; q=0.001"], true),
        (&["text/event-stream;charset=utf-8"], true),
        (&["application/json, text/event-stream"], true),
        (&["application/json", "text/event-stream"], true),
        (&["text/html,application/xml;q=0.9,*/*;q=0.8"], true),
        (&["application/json", "*/*;q=0.1"], true),
        (&["text/event-stream, */*;q=0"], true),
        (&["*/*;q=0", "text/event-stream"], true),
        (&["text/*;q=0, text/event-stream;q=1"], true),
        (&["text/event-stream;q=0"], false),
        (&["text/event-stream;q=0.000"], false),
        (&["text/event-stream; Q=0.0"], false),
        (&["text/event-stream;q=0, */*"], false),
        (&["*/*, text/*;q=0"], false),
        (&["application/json"], false),
        (&["application/json", "text/html"], false),
        (&["text/event-streams"], false),
        (&["*/*;q=0"], false),
        (&["application/*, x/text/event-stream"], false),
    ];
    for (accept, served) in table {
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
            let stream = || event_stream(by_hand().1);
            let quoted = format!("{method} {accept:?}");
            // Off by default.
            let request = ask(method.clone(), &headers);
            let (answer, calls) = counted(SseLayer::new(), request, stream()).await;
            assert_eq!((answer.status(), calls), (StatusCode::OK, 1), "{quoted}");
            assert_eq!(values(&answer, "vary"), [""; 0]);

            let strict = SseLayer::new().strict_accept();
            let (answer, calls) = counted(strict, ask(method, &headers), stream()).await;
            let expected = if served { (200, 1) } else { (406, 0) };
            assert_eq!((answer.status().as_u16(), calls), expected, "{quoted}");
            assert_eq!(values(&answer, "vary"), ["accept"], "{quoted}");
        }
    }
}

#[tokio::test]
async fn rule_60_vary_tells_that_accept_decided() {
    let strict = SseLayer::new().strict_accept();
    for status in [204, 404, 500] {
        let response = StatusCode::from_u16(status).unwrap();
        let answer = through(strict.clone(), asks(None), ([("vary", "Cookie")], response)).await;
        assert_eq!(values(&answer, "vary"), ["Cookie, accept"]);
    }
    let full = strict.clone().limits(Limits::new().total(0));
    let answer = through(full, asks(None), event_stream(by_hand().1)).await;
    assert_eq!(values(&answer, "vary"), ["accept"]);
    // OPTIONS is exempt.
    let options = ask(Method::OPTIONS, &[("accept", "application/json")]);
    let (answer, calls) = counted(strict, options, StatusCode::NO_CONTENT).await;
    assert_eq!((answer.status(), calls), (StatusCode::NO_CONTENT, 1));
}
