//! Calls over DRPC: the same clients and servers, and an error for what that wire does not carry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::drpc::{Profile, StatusDetails};
use ringmux::manage::{Dial, Manager};
use ringmux::rpc::{
    Channel, Code, Context, MetadataError, Origin, Receiver, Sender, Server, Status,
};
use ringmux::{Config, Engine, NotCarried, OpenError, PingError, Processed, SendError, Wire};
use tokio::sync::Notify;

use crate::host::*;

const PROFILES: [Profile; 3] = [
    Profile::STORJ,
    Profile::COCKROACH,
    Profile::COCKROACH_BEFORE_MUX,
];

fn over(profile: Profile) -> Config {
    Config::builder().drpc(profile).build().unwrap()
}

async fn feed(_: Context, request: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
    for n in 0..request.len() {
        out.send(Bytes::from(n.to_string())).await?;
    }
    Ok(())
}

async fn collect(_: Context, mut requests: Receiver<Bytes>) -> Result<Bytes, Status> {
    let mut all = Vec::new();
    while let Some(request) = requests.recv().await? {
        all.extend_from_slice(&request);
    }
    Ok(all.into())
}

async fn chat(
    _: Context,
    mut requests: Receiver<Bytes>,
    mut out: Sender<Bytes>,
) -> Result<(), Status> {
    while let Some(request) = requests.recv().await? {
        out.send(request).await?;
    }
    Ok(())
}

#[tokio::test]
async fn all_four_kinds_of_methods_are_served_and_one_session_carries_many_calls() {
    for profile in PROFILES {
        let builder = Server::builder()
            .unary(ECHO, echo)
            .server_streaming(FEED, feed)
            .client_streaming(COLLECT, collect)
            .bidirectional(CHAT, chat);
        let host = Host::with(builder, &over(profile)).await;
        assert_eq!(host.client.wire(), Wire::Drpc(profile));
        let calls = (0..100_u32).map(|n| {
            let channel = host.channel.clone();
            tokio::spawn(async move {
                let request = Bytes::from(n.to_string());
                assert_eq!(channel.call(&ECHO, &request).await.unwrap(), request);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            soon(call).await.unwrap();
        }

        let request = Bytes::from_static(b"abc");
        let feeding = host.channel.server_streaming(&FEED, &request).open();
        let mut answers = soon(feeding).await.unwrap();
        for n in ["0", "1", "2"] {
            assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), n);
        }
        assert!(soon(answers.recv()).await.unwrap().is_none());

        let (mut requests, reply) = soon(host.channel.client_streaming(&COLLECT).open())
            .await
            .unwrap();
        for part in ["a", "", "b"] {
            requests.send(Bytes::from(part)).await.unwrap();
        }
        requests.finish().unwrap();
        assert_eq!(soon(reply).await.unwrap(), "ab");

        let (mut requests, mut answers) = soon(host.channel.bidirectional(&CHAT).open())
            .await
            .unwrap();
        for word in ["one", "two"] {
            requests.send(Bytes::from(word)).await.unwrap();
            assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), word);
        }
        requests.finish().unwrap();
        assert!(soon(answers.recv()).await.unwrap().is_none());
        let stats = host.server.stats();
        assert_eq!((stats.calls, stats.failed), (103, 0), "{profile:?}");
    }
}

#[tokio::test]
async fn messages_of_any_legal_size_arrive_and_larger_ones_are_refused_to_their_sender() {
    for profile in PROFILES {
        let host = Host::with(Server::builder().unary(ECHO, echo), &over(profile)).await;
        for len in [0, 1, 65_535, 65_536, 65_537, 70_000, 4 << 20] {
            let request: Bytes = (0..len).map(|n| (n % 251) as u8).collect();
            let answer = soon(host.channel.call(&ECHO, &request).into_future()).await;
            assert_eq!(answer.unwrap(), request, "{len} {profile:?}");
        }
        let long = vec![0; (4 << 20) + 1].into();
        let status = soon(host.channel.call(&ECHO, &long).into_future()).await;
        assert_eq!(status.unwrap_err().code(), Code::RESOURCE_EXHAUSTED);
        let answer = soon(host.channel.call(&ECHO, &"on".into()).into_future()).await;
        assert_eq!(answer.unwrap(), "on");
    }
}

#[tokio::test]
async fn metadata_and_status_arrive_as_far_as_the_profile_carries_them() {
    async fn handler(cx: Context, _: Bytes) -> Result<Bytes, Status> {
        let tenant = cx.metadata().get_str("tenant").unwrap_or("none").to_owned();
        Err(Status::new(Code::new(42), tenant).with_details(&b"details"[..]))
    }
    for profile in PROFILES {
        let host = Host::with(Server::builder().unary(ECHO, handler), &over(profile)).await;
        let request = Bytes::new();
        for (key, says) in [("tenant", "a"), ("other", "none")] {
            let call = host.channel.call(&ECHO, &request).metadata(key, "a");
            let status = soon(call.into_future()).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::new(42), says));
            assert_eq!(status.origin(), Origin::Handler);
            assert_eq!(status.was_processed(), Processed::Yes);
            let details: &[u8] = match profile == Profile::STORJ {
                // A code and a text are all that it has.
                true => b"",
                false => b"details",
            };
            assert_eq!(status.details(), details, "{profile:?}");
        }
        let status = soon(host.channel.call(&OTHER, &request).into_future()).await;
        assert_eq!(status.unwrap_err().code(), Code::UNIMPLEMENTED);
    }
}

#[tokio::test]
async fn a_code_of_64_bits_comes_through_in_the_details() {
    async fn handler(_: Context, _: Bytes) -> Result<Bytes, Status> {
        let details = StatusDetails::encode(Some(1 << 40), [b""; 0]);
        Err(Status::new(Code::UNKNOWN, "wide").with_details(details))
    }
    let config = over(Profile::STORJ);
    let host = Host::with(Server::builder().unary(ECHO, handler), &config).await;
    let status = soon(host.channel.call(&ECHO, &Bytes::new()).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::UNKNOWN);
    let code = StatusDetails::decode(status.details()).code();
    assert_eq!(code, Some(1 << 40));
}

/// Says when it begins, and when it is dropped.
struct Watch {
    begun: Notify,
    dropped: Notify,
}

struct Dropped(Arc<Watch>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_cancel_here_end_the_handler_there_and_the_session_goes_on() {
    for profile in PROFILES {
        let watch = Arc::new(Watch {
            begun: Notify::new(),
            dropped: Notify::new(),
        });
        let seen = Arc::clone(&watch);
        let never = move |_: Context, _: Bytes| {
            let seen = Dropped(Arc::clone(&seen));
            async move {
                seen.0.begun.notify_one();
                std::future::pending().await
            }
        };
        let builder = Server::builder().unary(OTHER, never).unary(ECHO, echo);
        let host = Host::with(builder, &over(profile)).await;
        let request = Bytes::new();
        let call = host.channel.call(&OTHER, &request);
        let late = soon(call.timeout(Duration::from_millis(50)).into_future()).await;
        assert_eq!(late.unwrap_err().code(), Code::DEADLINE_EXCEEDED);
        soon(watch.dropped.notified()).await;

        let channel = host.channel.clone();
        let call = tokio::spawn(async move { channel.call(&OTHER, &Bytes::new()).await });
        // Its handler has begun, and so has the one before.
        soon(watch.begun.notified()).await;
        until("the handler runs", || host.server.stats().in_flight == 1).await;
        call.abort();
        soon(watch.dropped.notified()).await;
        let answer = soon(host.channel.call(&ECHO, &"on".into()).into_future()).await;
        assert_eq!(answer.unwrap(), "on", "{profile:?}");
    }
}

#[tokio::test]
async fn what_the_wire_does_not_carry_is_an_error_at_once_and_nothing_else_is_disturbed() {
    async fn handler(cx: Context, _: Bytes) -> Result<Bytes, Status> {
        for refused in [cx.add_header("age", "7"), cx.add_trailer("cost", "1")] {
            let carried = MetadataError::NotCarried(NotCarried::AnswerMetadata);
            assert_eq!(refused, Err(carried));
        }
        // The accepting side cannot call.
        let back = cx.channel().expect("a call has a caller");
        let status = back.call(&OTHER, &Bytes::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED);
        assert_eq!(status.was_processed(), Processed::No);
        Ok("fine".into())
    }
    for profile in PROFILES {
        let host = Host::with(Server::builder().unary(ECHO, handler), &over(profile)).await;
        for session in [&host.client, &host.session] {
            let pinged = soon(session.ping()).await;
            assert!(matches!(
                pinged,
                Err(PingError::NotCarried(NotCarried::Ping))
            ));
        }
        let opened = soon(host.session.open("/test.Test/Echo")).await;
        assert!(matches!(opened, Err(OpenError::NotThisSide)), "{opened:?}");
        let (mut send, recv) = soon(host.client.open("/test.Test/Echo")).await.unwrap();
        let sent = soon(send.send_meta("block")).await;
        assert!(
            matches!(sent, Err(SendError::NotCarried(NotCarried::Meta))),
            "{sent:?}"
        );
        drop((send, recv));
        let request = Bytes::new();
        let call = host.channel.call(&ECHO, &request);
        let twice = call.metadata("key", "1").metadata("key", "2");
        let status = soon(twice.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED);
        assert!(
            status.message().contains("one value for each key"),
            "{status}"
        );
        let answer = soon(host.channel.call(&ECHO, &request).into_future()).await;
        assert_eq!(answer.unwrap(), "fine", "{profile:?}");
    }
}

#[tokio::test]
async fn a_panic_of_a_handler_is_a_failed_call_and_its_neighbours_go_on() {
    async fn handler(_: Context, request: Bytes) -> Result<Bytes, Status> {
        assert!(request != "panic", "as told");
        Ok(request)
    }
    let config = over(Profile::COCKROACH);
    let host = Host::with(Server::builder().unary(ECHO, handler), &config).await;
    let channel = Channel::new(host.client.clone());
    for request in ["fine", "panic", "fine"] {
        let answer = soon(channel.call(&ECHO, &request.into()).into_future()).await;
        match request {
            "panic" => assert_eq!(answer.unwrap_err().code(), Code::INTERNAL),
            _ => assert_eq!(answer.unwrap(), request),
        }
    }
}

#[tokio::test]
async fn a_manager_counts_a_session_without_a_ping_as_proven_when_it_has_lived_long_enough() {
    let server = Server::builder().unary(ECHO, echo).build().unwrap();
    let engine = Engine::auto().unwrap();
    let config = over(Profile::COCKROACH);
    let addr = "tcp://127.0.0.1:0".parse().unwrap();
    let listener = engine.listen(&addr, &config).await.unwrap();
    let addr = listener.local_addr().clone();
    tokio::spawn(async move { server.serve(listener).await });
    let builder = Manager::builder(Dial::new(engine, addr, config));
    let manager = builder.proven_after(Duration::from_millis(1)).build();
    let manager = manager.unwrap();
    tokio::spawn(manager.start().unwrap());
    let channel = Channel::from(manager.clone());
    let answer = soon(channel.call(&ECHO, &"on".into()).into_future()).await;
    assert_eq!(answer.unwrap(), "on");
    until("the session is proven", || manager.metrics().proven == 1).await;
}

#[tokio::test]
async fn a_status_whose_details_are_too_long_arrives_without_them() {
    // The longest that go, with the envelope of 43 bytes that tells them from those of others, and longer ones.
    for profile in PROFILES {
        let handler = |_, len: Bytes| async move {
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            Err(Status::not_found("no such row").with_details(vec![7; len]))
        };
        let host = Host::with(Server::builder().unary(ECHO, handler), &over(profile)).await;
        for len in [8_100_u16, 8_149, 8_192, 8_193, 9_000] {
            let request = Bytes::copy_from_slice(&len.to_be_bytes());
            let status = soon(host.channel.call(&ECHO, &request).into_future()).await;
            let status = status.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::NOT_FOUND, "no such row"),
                "{len} {profile:?}"
            );
            let arrived = status.details().len();
            assert!(
                arrived == 0 || arrived == usize::from(len),
                "{arrived} of {len}"
            );
            if profile != Profile::STORJ {
                assert_eq!(arrived > 0, len <= 8_149, "{len}");
            }
        }
    }
}
