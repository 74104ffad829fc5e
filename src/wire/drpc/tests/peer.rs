//! One end of the wire, and a peer that writes frames by hand.

use proptest::prelude::*;

use super::*;
use crate::drpc::{CancelForm, DrpcError, FlowControl, MAX_OPENING};
use crate::error::{ProtocolError, SendError, Side, StreamError, codes};
use crate::handle::whole::{Stream, Whole as _};

const MUX: Profile = Profile::COCKROACH;

fn server(profile: Profile) -> (End, Peer) {
    Peer::of(Role::Acceptor, settings(profile))
}

fn client(profile: Profile) -> (End, Peer) {
    Peer::of(Role::Dialer, settings(profile))
}

/// The next call, which has this name.
async fn accept(session: &Session, name: &str) -> Stream {
    let served = soon(session.accept()).await.unwrap().unwrap();
    assert_eq!(served.opening(), name);
    served
}

fn is_cancelled(result: &Result<Option<Bytes>, StreamError>, by: Side, code: u32) -> bool {
    matches!(result, Err(StreamError::Cancelled { by: b, code: c }) if (*b, *c) == (by, code))
}

/// Echoes one message of a call with this id.
async fn echo(session: &Session, peer: &mut Peer, id: u64) {
    peer.send(&packet(Kind::Invoke, id, 1, b"/echo")).await;
    peer.send(&packet(Kind::Message, id, 2, b"hello")).await;
    peer.send(&packet(Kind::CloseSend, id, 3, b"")).await;
    let mut served = accept(session, "/echo").await;
    let message = soon(served.recv()).await.unwrap().unwrap();
    served.send(message).await.unwrap();
    served.finish().unwrap();
    peer.expect(Kind::Message, id, 1, b"hello").await;
    peer.expect(Kind::CloseSend, id, 2, b"").await;
}

// ---- the beginning of a connection ----------------------------------------------------------------

#[tokio::test]
async fn a_server_takes_the_connection_header_and_does_without() {
    for header in [&b""[..], b"DRPC!!!1"] {
        let ((session, _task), mut peer) = server(Profile::STORJ);
        for byte in header {
            peer.send(&[*byte]).await;
        }
        echo(&session, &mut peer, 1).await;
    }
}

#[tokio::test]
async fn a_client_sends_the_header_in_front_of_its_first_frame_and_once() {
    let ((session, _task), mut peer) = client(MUX.header(true));
    let _first = soon(session.open("/a")).await.unwrap();
    let _second = soon(session.open("/b")).await.unwrap();
    let mut header = [0; 8];
    soon(peer.io.read_exact(&mut header)).await.unwrap();
    assert_eq!(&header, b"DRPC!!!1");
    peer.expect(Kind::Invoke, 1, 1, b"/a").await;
    peer.expect(Kind::Invoke, 2, 1, b"/b").await;
}

#[tokio::test]
async fn noise_is_refused_by_name() {
    let ((session, _task), mut peer) = server(Profile::STORJ);
    peer.send(b"DRPC!N!1").await;
    let end = soon(session.closed()).await;
    let noise = ProtocolError::Drpc(DrpcError::NoisePrefix);
    assert!(matches!(end, SessionError::Protocol(error) if error == noise));
    assert_eq!(noise.rule(), "drpc-noise-prefix");
}

#[tokio::test]
async fn bytes_that_cannot_be_understood_end_the_connection_by_name() {
    let long_varint = [&[0x05][..], &[0x80; 10]].concat();
    let long_frame = frame_header(Kind::Message, 1, 2, (1 << 30) + 1);
    for (bytes, rule) in [
        (long_varint, "drpc-varint-too-long"),
        (long_frame, "drpc-frame-too-long"),
    ] {
        let ((session, _task), mut peer) = server(MUX);
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        peer.send(&bytes).await;
        match soon(session.closed()).await {
            SessionError::Protocol(error) => assert_eq!(error.rule(), rule),
            other => panic!("{other:?}"),
        }
    }
}

/// The header of a frame whose data do not follow.
fn frame_header(kind: Kind, stream: u64, message: u64, length: usize) -> Vec<u8> {
    let mut space = [0; HEADER_MAX];
    let mut rest = &mut space[..];
    Header::new(kind, stream, message, length).put(&mut rest);
    let left = rest.len();
    space[..HEADER_MAX - left].to_vec()
}

// ---- openings -------------------------------------------------------------------------------------

#[tokio::test]
async fn metadata_stands_in_front_of_its_invoke_whatever_lies_between_them() {
    let ((session, _task), mut peer) = server(MUX);
    let body = |value: u8| [0x0a, 6, 0x0a, 1, b'k', 0x12, 1, value];
    peer.send(&packet(Kind::InvokeMetadata, 3, 1, &body(b'x')))
        .await;
    // The last one counts, cut into frames.
    peer.send(&part(Kind::InvokeMetadata, 3, 2, &body(b'v')[..3]))
        .await;
    peer.send(&packet(Kind::Invoke, 1, 1, b"/other")).await;
    peer.send(&packet(Kind::InvokeMetadata, 3, 2, &body(b'v')[3..]))
        .await;
    peer.send(&part(Kind::Invoke, 3, 3, b"/wi")).await;
    peer.send(&packet(Kind::Invoke, 3, 3, b"th")).await;
    let _other = accept(&session, "/other").await;
    let served = soon(session.accept()).await.unwrap().unwrap();
    let block = [&b"/with\0"[..], &body(b'v')].concat();
    assert_eq!(served.opening(), &block[..]);
}

#[tokio::test]
async fn an_opening_that_is_malformed_or_too_long_is_refused_alone() {
    let long = vec![b'x'; MAX_OPENING + 1];
    let cases: [(Kind, &[u8], u32); 3] = [
        (Kind::InvokeMetadata, b"\x12\x01k", 13),
        (Kind::Invoke, &long, 8),
        (Kind::Invoke, b"/zero\0byte", 13),
    ];
    for (kind, data, code) in cases {
        let ((session, _task), mut peer) = server(MUX);
        let neighbour = packet(Kind::Invoke, 9, 1, b"/neighbour");
        peer.send(&neighbour).await;
        peer.send(&packet(kind, 1, 1, data)).await;
        if kind == Kind::InvokeMetadata {
            peer.send(&packet(Kind::Invoke, 1, 2, b"/m")).await;
        }
        peer.send(&packet(Kind::Message, 1, 3, b"late")).await;
        peer.expect_error(1, code).await;
        let _neighbour = accept(&session, "/neighbour").await;
        echo(&session, &mut peer, 11).await;
    }
}

#[tokio::test]
async fn streams_above_the_limit_are_refused_and_the_connection_stays() {
    let builder = settings(MUX).max_streams(16);
    let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
    for id in 1..=17 {
        peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
    }
    peer.expect_error(17, 14).await;
    let mut served = Vec::new();
    for _ in 0..16 {
        served.push(accept(&session, "/m").await);
    }
    // Both ends finish one: its place is free.
    peer.send(&packet(Kind::CloseSend, 1, 2, b"")).await;
    served[0].finish().unwrap();
    peer.expect(Kind::CloseSend, 1, 1, b"").await;
    drop(served.remove(0));
    while session.stats().streams > 15 {
        tokio::task::yield_now().await;
    }
    echo(&session, &mut peer, 18).await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_was_invoked_sends_nothing() {
    let ((session, _task), mut peer) = client(Profile::STORJ);
    let mut first = soon(session.open("/first")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/first").await;
    {
        let mut second = Box::pin(session.open("/second"));
        assert!(futures_util::poll!(&mut second).is_pending());
    }
    first.finish().unwrap();
    peer.expect(Kind::CloseSend, 1, 2, b"").await;
    peer.send(&packet(Kind::CloseSend, 1, 1, b"")).await;
    let _third = soon(session.open("/third")).await.unwrap();
    peer.expect(Kind::Invoke, 2, 1, b"/third").await;
}

#[tokio::test]
async fn a_call_that_is_given_up_before_its_invoke_has_arrived_is_never_seen() {
    for kind in [Kind::Cancel, Kind::Close] {
        let ((session, _task), mut peer) = server(MUX);
        peer.send(&packet(Kind::InvokeMetadata, 1, 1, b"")).await;
        peer.send(&part(Kind::Invoke, 1, 2, b"/m")).await;
        peer.send(&packet(kind, 1, 3, b"")).await;
        echo(&session, &mut peer, 2).await;
        assert_eq!(session.stats().accepted, 1);
    }
}

/// storj's servers stop reading a connection at a message that no handler takes, and see no end of the call behind it.
#[tokio::test]
async fn a_hard_cancel_closes_a_connection_that_the_peer_does_not_read() {
    let ((session, _task), _peer) = client(Profile::STORJ.cancel(CancelForm::Hard));
    let mut call = soon(session.open("/m")).await.unwrap();
    call.send(message(1 << 20)).await.unwrap();
    while session.stats().bytes_sent < PIPE as u64 {
        tokio::task::yield_now().await;
    }
    call.cancel(7);
    let end = soon(session.closed()).await;
    assert!(matches!(end, SessionError::Closed), "{end:?}");
}

#[tokio::test]
async fn an_end_inside_a_message_has_a_number_of_its_own() {
    for dials in [true, false] {
        let profile = MUX;
        let role = if dials { Role::Dialer } else { Role::Acceptor };
        let ((session, _task), mut peer) = Peer::of(role, settings(profile));
        let mut call = if dials {
            let call = soon(session.open("/m")).await.unwrap();
            peer.expect(Kind::Invoke, 1, 1, b"/m").await;
            call
        } else {
            peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
            accept(&session, "/m").await
        };
        // More than the pipe and a batch hold.
        call.send(message(4 << 20)).await.unwrap();
        let (first, _) = peer.next().await;
        call.cancel(codes::CANCELLED);
        assert!(!first.done);
        loop {
            let (header, _) = peer.next().await;
            if header.kind != Kind::Message {
                let kind = if dials { Kind::Cancel } else { Kind::Error };
                assert_eq!((header.kind, header.message), (kind, first.message + 1));
                break;
            }
            assert!(!header.done);
        }
    }
}

#[tokio::test]
async fn an_opening_block_that_peers_would_hang_up_at_is_not_sent() {
    let ((session, _task), mut peer) = client(MUX);
    let mut bad = soon(session.open(&b"/m\0garbage"[..])).await.unwrap();
    let end = soon(bad.recv()).await;
    assert!(is_cancelled(&end, Side::This, codes::PROTOCOL), "{end:?}");
    let _next = soon(session.open("/next")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/next").await;
}

// ---- ends -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_close_of_a_running_call_delivers_its_messages_and_is_no_clean_end() {
    let ((session, _task), mut peer) = server(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&packet(Kind::Message, 1, 2, b"one")).await;
    peer.send(&packet(Kind::Close, 1, 3, b"")).await;
    let mut served = accept(&session, "/m").await;
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "one");
    let end = soon(served.recv()).await;
    assert!(is_cancelled(&end, Side::Peer, codes::CANCELLED), "{end:?}");
    assert!(soon(served.send("answer")).await.is_err());
    echo(&session, &mut peer, 2).await;
}

#[tokio::test]
async fn a_cancel_is_no_clean_end_even_behind_the_end_of_the_request() {
    let ((session, _task), mut peer) = server(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&packet(Kind::Message, 1, 2, b"one")).await;
    let mut served = accept(&session, "/m").await;
    peer.send(&packet(Kind::Cancel, 1, 3, b"")).await;
    let end = loop {
        match soon(served.recv()).await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(is_cancelled(&end, Side::Peer, codes::CANCELLED), "{end:?}");
    echo(&session, &mut peer, 2).await;
}

#[tokio::test]
async fn a_close_or_cancel_of_a_call_that_is_over_is_ignored() {
    for kind in [Kind::Close, Kind::Cancel] {
        let ((session, _task), mut peer) = server(Profile::STORJ);
        for id in 1..20 {
            echo(&session, &mut peer, id).await;
            peer.send(&packet(kind, id, 4, b"")).await;
        }
    }
}

#[tokio::test]
async fn the_end_of_a_connection_inside_a_message_is_no_clean_end() {
    let ((session, _task), mut peer) = server(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&part(Kind::Message, 1, 2, b"half")).await;
    let mut served = accept(&session, "/m").await;
    drop(peer);
    assert!(matches!(
        soon(served.recv()).await,
        Err(StreamError::Session(_))
    ));
}

#[tokio::test]
async fn a_message_that_is_not_continued_is_dropped_and_the_next_one_delivered() {
    let ((session, _task), mut peer) = server(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&part(Kind::Message, 1, 2, b"never complete"))
        .await;
    peer.send(&part(Kind::Message, 1, 3, b"wh")).await;
    peer.send(&packet(Kind::Message, 1, 3, b"ole")).await;
    peer.send(&packet(Kind::CloseSend, 1, 9, b"")).await;
    let mut served = accept(&session, "/m").await;
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "whole");
    assert_eq!(soon(served.recv()).await.unwrap(), None);
}

/// Reads the pieces of a message that is not complete.
async fn read_pieces(call: &mut Stream, pieces: &[u8]) {
    let mut buf = vec![0; pieces.len()];
    soon(call.1.read_exact(&mut buf)).await.unwrap();
    assert_eq!(buf, pieces);
}

#[tokio::test]
async fn a_call_whose_peer_ends_it_inside_a_message_read_in_pieces_ends_by_that_and_is_no_fault() {
    for kind in [Kind::Cancel, Kind::Close, Kind::Error] {
        let builder = settings(MUX).max_faulty_streams(1);
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
        for id in 1..5 {
            peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
            let mut served = accept(&session, "/m").await;
            peer.send(&part(Kind::Message, id, 2, b"pieces")).await;
            read_pieces(&mut served, b"pieces").await;
            let data: &[u8] = match kind {
                Kind::Error => b"\x01\x08\x2a",
                _ => b"",
            };
            peer.send(&packet(kind, id, 3, data)).await;
            let end = soon(served.recv()).await;
            match &end {
                Err(StreamError::Failed(it)) => assert_eq!((kind, it.code), (Kind::Error, 42)),
                _ => assert!(
                    is_cancelled(&end, Side::Peer, codes::CANCELLED),
                    "{kind:?}: {end:?}"
                ),
            }
        }
        // Nothing was said about the calls before.
        echo(&session, &mut peer, 5).await;
    }
}

#[tokio::test]
async fn a_server_that_fails_inside_an_answer_read_in_pieces_says_why() {
    let ((session, _task), mut peer) = client(MUX);
    let mut call = soon(session.open("/m")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/m").await;
    peer.send(&part(Kind::Message, 1, 1, b"pieces")).await;
    read_pieces(&mut call, b"pieces").await;
    let error = b"\x01\x08\x2a\x12\x04nope";
    peer.send(&part(Kind::Error, 1, 2, &error[..4])).await;
    peer.send(&packet(Kind::Error, 1, 2, &error[4..])).await;
    match soon(call.recv()).await {
        Err(StreamError::Failed(it)) => assert_eq!((it.code, &it.message[..]), (42, "nope")),
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn a_message_read_in_pieces_that_is_not_continued_ends_its_stream_and_is_no_fault() {
    for kind in [Kind::Message, Kind::CloseSend] {
        let builder = settings(MUX).max_faulty_streams(1);
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
        for id in 1..5 {
            peer.send(&packet(Kind::Invoke, id, 1, b"/m")).await;
            let mut served = accept(&session, "/m").await;
            peer.send(&part(Kind::Message, id, 2, b"pieces")).await;
            read_pieces(&mut served, b"pieces").await;
            peer.send(&packet(kind, id, 3, b"")).await;
            let end = soon(served.recv()).await;
            assert!(is_cancelled(&end, Side::This, codes::PROTOCOL), "{end:?}");
            peer.expect_error(id, 13).await;
        }
        echo(&session, &mut peer, 5).await;
    }
}

#[tokio::test]
async fn an_error_of_the_server_in_either_form_is_a_failure_of_the_call() {
    let forms: [&[u8]; 2] = [b"\0\0\0\0\0\0\0\x2anope", b"\x01\x08\x2a\x12\x04nope"];
    for profile in [Profile::STORJ, MUX] {
        for (at, data) in forms.into_iter().enumerate() {
            let ((session, _task), mut peer) = client(profile);
            let mut call = soon(session.open("/m")).await.unwrap();
            peer.expect(Kind::Invoke, 1, 1, b"/m").await;
            // Cut into frames, which senders do not do.
            peer.send(&part(Kind::Error, 1, 1, &data[..5])).await;
            peer.send(&packet(Kind::Error, 1, 1, &data[5..])).await;
            let Err(StreamError::Failed(failure)) = soon(call.recv()).await else {
                panic!("form {at}");
            };
            assert_eq!((failure.code, &failure.message[..]), (42, "nope"));
        }
    }
}

/// Go's server allows it: a handler that has half-closed may fail. The bytes are as those of storj/drpc.
#[tokio::test]
async fn an_error_behind_the_end_of_the_answers_carries_its_code_to_the_sender() {
    let ((session, _task), mut peer) = client(Profile::STORJ);
    let mut call = soon(session.open("/m")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/m").await;
    peer.send(b"\x05\x01\x01\x06answer\x0d\x01\x02\x00").await;
    peer.send(b"\x07\x01\x03\x16\0\0\0\0\0\0\0\x37behind the end")
        .await;
    let error = soon(call.stopped()).await;
    let SendError::Stream(StreamError::Failed(failure)) = error else {
        panic!("{error:?}");
    };
    assert_eq!((failure.code, &*failure.message), (55, "behind the end"));
    assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "answer");
    assert_eq!(soon(call.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn an_error_behind_the_end_of_the_answer_ends_the_request_whether_the_answer_is_wanted_or_not()
 {
    for stops in [false, true] {
        let ((session, _task), mut peer) = client(MUX);
        let (mut send, mut recv) = soon(session.open("/m")).await.unwrap();
        peer.expect(Kind::Invoke, 1, 1, b"/m").await;
        if stops {
            recv.stop(7);
        }
        // The stop is known when the message behind it is sent.
        send.send("one").await.unwrap();
        peer.expect(Kind::Message, 1, 2, b"one").await;
        peer.send(&packet(Kind::CloseSend, 1, 1, b"")).await;
        let error = b"\0\0\0\0\0\0\0\x2anope";
        peer.send(&packet(Kind::Error, 1, 2, error)).await;
        let end = soon(send.stopped()).await;
        let SendError::Stream(StreamError::Failed(failure)) = end else {
            panic!("{end:?}, stops: {stops}");
        };
        assert_eq!((failure.code, &*failure.message), (42, "nope"));
        drop((send, recv));
        let _next = soon(session.open("/next")).await.unwrap();
        peer.expect(Kind::Invoke, 2, 1, b"/next").await;
    }
}

#[tokio::test]
async fn a_new_call_of_a_peer_with_one_at_a_time_cancels_the_one_before() {
    let ((session, _task), mut peer) = server(Profile::STORJ);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/first")).await;
    let mut first = accept(&session, "/first").await;
    peer.send(&packet(Kind::Invoke, 2, 1, b"/second")).await;
    let end = soon(first.recv()).await;
    assert!(is_cancelled(&end, Side::Peer, codes::CANCELLED), "{end:?}");
    let mut second = accept(&session, "/second").await;
    assert!(soon(first.send("late")).await.is_err());
    second.send("answer").await.unwrap();
    peer.expect(Kind::Message, 2, 1, b"answer").await;
    // A frame of the first is too late, and so is another Invoke of it.
    peer.send(&packet(Kind::CloseSend, 1, 2, b"")).await;
    peer.send(&packet(Kind::Invoke, 1, 3, b"/first")).await;
    peer.send(&packet(Kind::CloseSend, 2, 2, b"")).await;
    second.finish().unwrap();
    peer.expect(Kind::CloseSend, 2, 2, b"").await;
    echo(&session, &mut peer, 3).await;
}

// ---- faults of one stream -------------------------------------------------------------------------

#[tokio::test]
async fn a_fault_ends_its_stream_and_leaves_the_neighbours_alone() {
    let unknown = Kind::Unknown(33);
    let faults: [Vec<Vec<u8>>; 6] = [
        vec![packet(Kind::Message, 1, 0, b"id 0")],
        vec![packet(Kind::Message, 1, 1, b"id used")],
        vec![
            part(Kind::Message, 1, 2, b"kind"),
            packet(Kind::Error, 1, 2, b"changes"),
        ],
        vec![packet(Kind::Invoke, 1, 2, b"/again")],
        vec![packet(Kind::InvokeMetadata, 1, 2, b"")],
        vec![packet(unknown, 1, 2, b"without the control bit")],
    ];
    for fault in faults {
        let ((session, _task), mut peer) = server(MUX);
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        peer.send(&packet(Kind::Invoke, 2, 1, b"/neighbour")).await;
        let mut served = accept(&session, "/m").await;
        let mut neighbour = accept(&session, "/neighbour").await;
        for frame in &fault {
            peer.send(frame).await;
        }
        let end = soon(served.recv()).await;
        assert!(is_cancelled(&end, Side::This, codes::PROTOCOL), "{end:?}");
        peer.expect_error(1, 13).await;
        // Late frames of it are ignored.
        peer.send(&packet(Kind::Message, 1, 5, b"late")).await;
        peer.send(&packet(Kind::Message, 2, 2, b"hello")).await;
        assert_eq!(soon(neighbour.recv()).await.unwrap().unwrap(), "hello");
        echo(&session, &mut peer, 3).await;
    }
}

#[tokio::test]
async fn a_fault_of_a_server_is_answered_by_a_cancel() {
    let ((session, _task), mut peer) = client(MUX);
    let mut call = soon(session.open("/m")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/m").await;
    peer.send(&packet(Kind::Message, 1, 0, b"")).await;
    let end = soon(call.recv()).await;
    assert!(is_cancelled(&end, Side::This, codes::PROTOCOL), "{end:?}");
    peer.expect(Kind::Cancel, 1, 2, b"").await;
}

#[tokio::test]
async fn frames_with_the_control_bit_and_of_unknown_streams_are_passed_over() {
    let ((session, _task), mut peer) = server(MUX);
    let control = |kind, stream, message| {
        let header = Header {
            control: true,
            ..Header::new(kind, stream, message, 0)
        };
        frame(&header, b"extension")
    };
    peer.send(&packet(Kind::Message, 77, 3, b"unknown")).await;
    peer.send(&packet(Kind::CloseSend, 0, 1, b"")).await;
    peer.send(&packet(Kind::Invoke, 0, 1, b"/zero")).await;
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&control(Kind::Unknown(40), 1, 2)).await;
    peer.send(&control(Kind::InvokeMetadata, 1, 3)).await;
    peer.send(&packet(Kind::WindowUpdate, 1, 0, b"\x80")).await;
    // Numbers in longer forms than needed.
    peer.send(&[0x05, 0x81, 0x00, 0x84, 0x80, 0x00, 0x82, 0x00, b'h', b'i'])
        .await;
    let mut served = accept(&session, "/m").await;
    assert_eq!(soon(served.recv()).await.unwrap().unwrap(), "hi");
}

#[tokio::test]
async fn a_server_opens_no_streams_at_a_client() {
    let ((session, _task), mut peer) = client(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&packet(Kind::Message, 1, 2, b"m")).await;
    let mut call = soon(session.open("/mine")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/mine").await;
    peer.send(&packet(Kind::Message, 1, 1, b"answer")).await;
    assert_eq!(soon(call.recv()).await.unwrap().unwrap(), "answer");
    assert_eq!(session.stats().accepted, 0);
}

#[tokio::test]
async fn a_message_above_the_limit_ends_its_stream_alone_in_one_frame_or_many() {
    for cut in [usize::MAX, 64 * 1024] {
        let builder = settings(MUX).max_message(64 * 1024);
        let ((session, _task), mut peer) = Peer::of(Role::Acceptor, builder);
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        let mut served = accept(&session, "/m").await;
        let long = message(64 * 1024 + 1);
        for piece in long.chunks(cut.min(long.len())) {
            peer.send(&part(Kind::Message, 1, 2, piece)).await;
        }
        let end = soon(served.recv()).await;
        assert!(
            matches!(&end, Err(StreamError::LimitExceeded(it)) if it.limit == crate::Limit::MessageSize),
            "{end:?}"
        );
        peer.expect_error(1, 8).await;
        echo(&session, &mut peer, 2).await;
    }
}

#[tokio::test]
async fn a_frame_longer_than_any_buffer_is_one_message() {
    let ((session, _task), mut peer) = server(MUX);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    let mut served = accept(&session, "/m").await;
    let long = message(4 << 20);
    peer.send(&packet(Kind::Message, 1, 2, &long)).await;
    assert!(soon(served.recv()).await.unwrap().unwrap() == long);
}

// ---- credit ---------------------------------------------------------------------------------------

#[tokio::test]
async fn credit_is_returned_only_to_a_peer_that_has_shown_that_it_knows_it() {
    for (flow, shown, returns) in [
        (FlowControl::Off, true, false),
        (FlowControl::WhenSeen, false, false),
        (FlowControl::WhenSeen, true, true),
        (FlowControl::On, false, true),
        (FlowControl::Required, false, true),
    ] {
        let ((session, _task), mut peer) = server(MUX.flow_control(flow));
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        let mut served = accept(&session, "/m").await;
        if shown {
            peer.send(&packet(Kind::WindowUpdate, 1, 0, &[1])).await;
        }
        for n in 0..40 {
            peer.send(&packet(Kind::Message, 1, 2 + n, &message(4096)))
                .await;
            assert!(soon(served.recv()).await.unwrap().is_some());
        }
        served.finish().unwrap();
        let mut returned = 0;
        loop {
            let (header, data) = peer.next().await;
            if header.kind == Kind::CloseSend {
                break;
            }
            assert_eq!((header.kind, header.control), (Kind::WindowUpdate, true));
            // Outside the order of packets only for a peer that is known to expect it.
            let known = shown || flow == FlowControl::Required;
            assert_eq!(header.message == 0, known);
            match crate::drpc::Varint::split(&data) {
                Some((delta, [])) => returned += delta,
                _ => panic!("{data:?}"),
            }
        }
        if returns {
            assert!((1..=40 * 4096).contains(&returned), "{returned}");
        } else {
            assert_eq!(returned, 0);
        }
    }
}

/// Messages of 20,000 bytes in all.
async fn fill_window(peer: &mut Peer, stream: u64) {
    for n in 0..5 {
        let bytes = packet(Kind::Message, stream, 2 + n, &message(4000));
        peer.send(&bytes).await;
    }
}

/// The next frame returns more than half of that.
async fn returns_most(peer: &mut Peer, stream: u64) {
    let (header, data) = peer.next().await;
    assert_eq!((header.kind, header.stream), (Kind::WindowUpdate, stream));
    let delta = crate::drpc::Varint::split(&data);
    assert!(
        matches!(delta, Some((10_000..=20_000, []))),
        "{delta:?} of 20,000"
    );
}

#[tokio::test]
async fn credit_of_messages_that_are_discarded_goes_back_at_a_stop() {
    for flow in [FlowControl::WhenSeen, FlowControl::On] {
        let profile = MUX.flow_control(flow).window(20_000);
        let ((session, _task), mut peer) = server(profile);
        peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
        peer.send(&packet(Kind::WindowUpdate, 1, 0, &[1])).await;
        fill_window(&mut peer, 1).await;
        let mut served = accept(&session, "/m").await;
        while session.stats().messages_received < 5 {
            tokio::task::yield_now().await;
        }
        served.stop(7);
        returns_most(&mut peer, 1).await;
    }
}

#[tokio::test]
async fn credit_that_was_consumed_before_the_peer_showed_that_it_knows_it_goes_back_then() {
    let profile = MUX.flow_control(FlowControl::WhenSeen).window(20_000);
    let ((session, _task), mut peer) = server(profile);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    peer.send(&packet(Kind::Invoke, 2, 1, b"/other")).await;
    fill_window(&mut peer, 1).await;
    let mut served = accept(&session, "/m").await;
    for _ in 0..5 {
        assert!(soon(served.recv()).await.unwrap().is_some());
    }
    let _other = accept(&session, "/other").await;
    peer.send(&packet(Kind::WindowUpdate, 2, 0, &[1])).await;
    returns_most(&mut peer, 1).await;
}

#[tokio::test]
async fn credit_that_waits_for_the_end_of_a_message_goes_back_behind_it() {
    const LONG: usize = 400_000;
    let profile = MUX.flow_control(FlowControl::On).window(20_000);
    let ((session, _task), mut peer) = server(profile);
    peer.send(&packet(Kind::Invoke, 1, 1, b"/m")).await;
    let mut served = accept(&session, "/m").await;
    served.send(message(LONG)).await.unwrap();
    let (first, _) = peer.next().await;
    assert!(!first.done);
    fill_window(&mut peer, 1).await;
    for _ in 0..5 {
        assert!(soon(served.recv()).await.unwrap().is_some());
    }
    loop {
        let (header, _) = peer.next().await;
        assert_eq!(header.kind, Kind::Message);
        if header.done {
            break;
        }
    }
    returns_most(&mut peer, 1).await;
}

/// CockroachDB has flow control by default since 2026, and shows it only when it has received.
#[tokio::test]
async fn a_peer_that_only_uploads_gets_its_credit_back() {
    let ((session, _task), mut peer) = server(MUX.window(20_000));
    peer.send(&packet(Kind::Invoke, 1, 1, b"/upload")).await;
    let mut served = accept(&session, "/upload").await;
    fill_window(&mut peer, 1).await;
    for _ in 0..5 {
        assert!(soon(served.recv()).await.unwrap().is_some());
    }
    let (header, data) = soon(peer.next()).await;
    assert_eq!((header.kind, header.control), (Kind::WindowUpdate, true));
    assert!(
        header.message > 0,
        "in the order of packets, for peers without flow control"
    );
    assert!(crate::drpc::Varint::split(&data).is_some_and(|(delta, _)| delta >= 5_000));
}

#[tokio::test]
async fn sending_waits_for_credit_from_the_start_where_the_peer_certainly_returns_it() {
    let profile = MUX.flow_control(FlowControl::Required).window(100_000);
    let ((session, _task), mut peer) = client(profile);
    let mut call = soon(session.open("/m")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/m").await;
    for len in [60_000, 50_000] {
        call.send(message(len)).await.unwrap();
    }
    let (header, _) = peer.next().await;
    assert_eq!((header.stream, header.length), (1, 60_000));
    let mut other = soon(session.open("/other")).await.unwrap();
    other.send("not held up").await.unwrap();
    peer.expect(Kind::Invoke, 2, 1, b"/other").await;
    peer.expect(Kind::Message, 2, 2, b"not held up").await;
    let mut delta = Vec::new();
    crate::drpc::put_varint(&mut delta, 60_000);
    peer.send(&packet(Kind::WindowUpdate, 1, 0, &delta)).await;
    let (header, _) = peer.next().await;
    assert_eq!((header.stream, header.length), (1, 50_000));
}

#[tokio::test]
async fn sending_waits_for_credit_once_the_peer_has_returned_some() {
    let ((session, _task), mut peer) = client(MUX.window(100_000));
    let mut call = soon(session.open("/m")).await.unwrap();
    peer.expect(Kind::Invoke, 1, 1, b"/m").await;
    call.send(message(60_000)).await.unwrap();
    let (header, _) = peer.next().await;
    assert_eq!(header.length, 60_000);
    peer.send(&packet(Kind::WindowUpdate, 1, 0, &[1])).await;
    // Seen when the answer behind it is.
    peer.send(&packet(Kind::Message, 1, 1, b"")).await;
    assert!(soon(call.recv()).await.unwrap().is_some());
    call.send(message(50_000)).await.unwrap();
    call.send(message(1)).await.unwrap();
    let mut other = soon(session.open("/other")).await.unwrap();
    other.send("not held up").await.unwrap();
    peer.expect(Kind::Invoke, 2, 1, b"/other").await;
    peer.expect(Kind::Message, 2, 2, b"not held up").await;
    let mut delta = Vec::new();
    crate::drpc::put_varint(&mut delta, 59_999);
    peer.send(&packet(Kind::WindowUpdate, 1, 0, &delta)).await;
    let (header, _) = peer.next().await;
    assert_eq!((header.stream, header.length), (1, 50_000));
    let (header, _) = peer.next().await;
    assert_eq!((header.stream, header.length), (1, 1));
}

// ---- any cut, any bytes ---------------------------------------------------------------------------

/// A conversation of a client, and what a server that echoes answers.
fn conversation() -> Vec<u8> {
    let mut bytes = b"DRPC!!!1".to_vec();
    bytes.extend(packet(
        Kind::InvokeMetadata,
        1,
        1,
        b"\x0a\x06\x0a\x01k\x12\x01v",
    ));
    bytes.extend(packet(Kind::Invoke, 1, 2, b"/a"));
    bytes.extend(packet(Kind::Invoke, 300, 1, b"/b"));
    bytes.extend(part(Kind::Message, 1, 3, b"on"));
    bytes.extend(packet(Kind::Message, 300, 2, b""));
    bytes.extend(part(Kind::Message, 1, 3, b""));
    bytes.extend(packet(Kind::Message, 1, 3, b"e"));
    bytes.extend(packet(Kind::CloseSend, 300, 3, b""));
    bytes.extend(packet(Kind::CloseSend, 1, 4, b""));
    bytes
}

async fn converse(pieces: &[&[u8]]) {
    let ((session, _task), mut peer) = server(MUX);
    for piece in pieces {
        peer.send(piece).await;
        tokio::task::yield_now().await;
    }
    let mut first = soon(session.accept()).await.unwrap().unwrap();
    assert!(first.opening().starts_with(b"/a\0"));
    let mut second = accept(&session, "/b").await;
    assert_eq!(soon(first.recv()).await.unwrap().unwrap(), "one");
    assert_eq!(soon(second.recv()).await.unwrap().unwrap(), "");
    for call in [&mut first, &mut second] {
        assert_eq!(soon(call.recv()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_conversation_cut_at_every_byte_is_the_same() {
    let bytes = conversation();
    for cut in 0..=bytes.len() {
        converse(&[&bytes[..cut], &bytes[cut..]]).await;
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    converse(&single).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_an_end_panic_or_hang(
        parts in prop::collection::vec(
            (0_u8..80, 0_u64..4, 0_u64..6, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
            0..60,
        ),
        garbage in prop::collection::vec(any::<u8>(), 0..60),
        dials in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let role = if dials { Role::Dialer } else { Role::Acceptor };
            let ((session, task), mut peer) = Peer::of(role, settings(MUX));
            let _call = if dials { Some(soon(session.open("/m")).await.unwrap()) } else { None };
            for (first, stream, message, done, data) in &parts {
                let mut bytes = frame(&Header::new(Kind::Message, *stream, *message, 0), data);
                bytes[0] = first << 1 | u8::from(*done);
                if peer.io.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = peer.io.write_all(&garbage).await;
            drop(peer);
            drop(session);
            soon(task).await.unwrap();
        });
    }
}
