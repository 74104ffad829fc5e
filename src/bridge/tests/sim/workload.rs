//! The behaviour of the applications of a run: a function of the seed, the stream and the side.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use super::ledger::{self, LONGEST, Seen, Tag, block, content, opener, pair_of};
use super::world::{Desk, Owner};
use crate::bridge::tests::A;
use crate::bridge::tests::net::Rng;
use crate::drpc::Invocation;
use crate::error::codes;
use crate::error::{OpenError, PingError, SendError};
use crate::handle::call::Arrival;
use crate::handle::whole::{Stream, Whole as _};
use crate::handle::{RecvStream, SendStream, Session};

mod calls;

pub(super) use calls::{CallMix, Serving};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    /// Streams that each side opens.
    pub(super) streams: [usize; 2],
    /// Maximum of messages a direction.
    pub(super) messages: usize,
    /// One in this many messages is longer than a frame.
    pub(super) long: usize,
    /// Ends other than `finish` and reading to the end, one in this many.
    pub(super) rude: usize,
    /// Maximum pause of a consumer, in microseconds.
    pub(super) pause: usize,
    /// A side accepts no more after it has accepted this many streams.
    pub(super) leave: Option<(usize, usize)>,
    /// One in this many senders waits for this many milliseconds before its end.
    pub(super) hold: (usize, usize),
    pub(super) calls: CallMix,
    /// Over DRPC, which carries less.
    pub(super) drpc: bool,
}

const SHORT: [usize; 11] = [0, 1, 7, 8, 255, 256, 257, 1000, 4095, 4096, 4097];
const LONG: [usize; 11] = [
    8192,
    16 * 1024 - 8,
    16 * 1024 - 4,
    16 * 1024,
    16 * 1024 + 1,
    16 * 1024 + 8,
    32 * 1024 - 260,
    40_000,
    64 * 1024,
    120_000,
    300 * 1024,
];

fn plan(desk: &Desk, tag: Tag, part: u64) -> Rng {
    Rng::of(desk.seed, tag.wrapping_mul(64) + part)
}

/// The applications of one side of a connection.
pub(super) fn start(desk: &Rc<Desk>, mix: &Mix, pair: usize, side: usize, session: &Session) {
    let (d, m, s) = (Rc::clone(desk), mix.clone(), session.clone());
    // Streams that are given up never arrive, so it cannot know how many will.
    let name = |what: &str| format!("{what} {pair}/{side}");
    desk.spawn(
        name("accept"),
        Owner::Waits(pair),
        accept(d, m, pair, side, s),
    );
    let (d, s) = (Rc::clone(desk), session.clone());
    desk.spawn(name("ping"), Owner::Busy(pair), ping(d, pair, side, s));
    let (d, m, s) = (Rc::clone(desk), mix.clone(), session.clone());
    desk.spawn(name("open"), Owner::Busy(pair), open(d, m, pair, side, s));
    calls::start(desk, mix, pair, side, session);
}

async fn ping(desk: Rc<Desk>, pair: usize, side: usize, session: Session) {
    let mut rng = plan(&desk, ledger::tag(pair, side, 0), 1);
    for _ in 0..rng.below(4) {
        desk.sleep(rng.micros(3000)).await;
        if let Err(PingError::Session(end)) = session.ping().await {
            return desk.ledger.borrow_mut().session(pair, side, &end);
        }
    }
}

async fn accept(desk: Rc<Desk>, mix: Mix, pair: usize, side: usize, session: Session) {
    let mut rng = plan(&desk, ledger::tag(pair, side, 0), 2);
    let most = match mix.leave {
        Some((leaver, after)) if leaver == side => after,
        _ => usize::MAX,
    };
    let mut taker = calls::Taker::new(&session, mix.calls.taken[side]);
    for _ in 0..most {
        if rng.one_in(8) {
            desk.sleep(rng.micros(mix.pause)).await;
        }
        match taker.next(&desk).await {
            Ok(Some(Arrival::Call(call))) => calls::handle(&desk, &mix, pair, side, call),
            Ok(Some(Arrival::Stream(send, recv))) => {
                let stream = (send, recv);
                let tag = ledger::named(stream.opening());
                desk.ledger
                    .borrow_mut()
                    .accepted(pair, tag, stream.opening());
                serve(&desk, &mix, side, tag, stream);
            }
            Ok(None) => {
                let end = session.state().end().expect("it has ended");
                return desk.ledger.borrow_mut().session(pair, side, &end);
            }
            Err(end) => return desk.ledger.borrow_mut().session(pair, side, &end),
        }
    }
    // A side that leaves drops its handle; if that was the last one, later streams are refused.
    let mut ledger = desk.ledger.borrow_mut();
    let licence = ledger.licence(pair);
    licence.end = true;
    // The accepting side sends nothing before the dialler's preface.
    licence.mute |= !session.link().is_established();
}

async fn open(desk: Rc<Desk>, mix: Mix, pair: usize, side: usize, session: Session) {
    let mut rng = plan(&desk, ledger::tag(pair, side, 0), 3);
    if mix.drpc && side == A {
        let refused = session.open("not from here").await;
        let refused_or_over =
            matches!(refused, Err(OpenError::NotThisSide | OpenError::Session(_)));
        if !refused_or_over {
            desk.fail(format!("{pair}: {refused:?}"));
        }
        return;
    }
    for n in 0..mix.streams[side] {
        if rng.one_in(4) {
            desk.sleep(rng.micros(2000)).await;
        }
        let tag = ledger::tag(pair, side, n);
        let len = rng.pick(&[8, 8, 9, 100, 1000, 8192]);
        // Given up while it waits: the peer never hears of it, so it opens another one.
        let give_up = rng.one_in(mix.rude * 2);
        let mut waited = 0;
        let block = opening(&desk, &mix, tag, len);
        let opened = loop {
            {
                let mut ledger = desk.ledger.borrow_mut();
                let entry = ledger.entry(tag);
                (entry.opened, entry.block) = (true, block.clone());
            }
            let mut opening = pin!(session.open(block.clone()));
            let tried = std::future::poll_fn(|cx| {
                waited += 1;
                match opening.as_mut().poll(cx) {
                    Poll::Pending if give_up && waited == 1 => Poll::Ready(None),
                    other => other.map(Some),
                }
            });
            if let Some(opened) = tried.await {
                break opened;
            }
        };
        match opened {
            Ok(stream) => serve(&desk, &mix, side, tag, stream),
            Err(OpenError::Session(end)) => {
                return desk.ledger.borrow_mut().not_opened(tag, &end);
            }
            Err(error) => return desk.fail(error.to_string()),
        }
    }
}

/// The opening block of a stream; over DRPC some have metadata.
fn opening(desk: &Desk, mix: &Mix, tag: Tag, len: usize) -> bytes::Bytes {
    let name = block(tag, len);
    let mut rng = plan(desk, tag, 14);
    if !mix.drpc || rng.one_in(2) {
        return name;
    }
    let name = std::str::from_utf8(&name).expect("text");
    let value = content(tag, 0, 1 << 41, rng.pick(&[0, 10, 300]));
    let entries = (0..rng.below(3)).map(|n| (n.to_string(), &value));
    let block = Invocation::encode(name, entries);
    block.expect("short enough").into()
}

/// The exchange on a stream, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The opener asks, and then waits for the answer; the other side receives first.
    Call,
    /// Each message is answered before the next one is sent.
    Conversation,
    /// Both directions by themselves.
    Streams,
}

impl Shape {
    const fn of(tag: Tag) -> Self {
        match tag % 3 {
            0 => Self::Call,
            1 => Self::Conversation,
            _ => Self::Streams,
        }
    }
}

fn serve(desk: &Rc<Desk>, mix: &Mix, side: usize, tag: Tag, stream: Stream) {
    let (sender, receiver) = stream.split();
    let owner = Owner::Busy(pair_of(tag));
    let asks = side == opener(tag);
    if Shape::of(tag) == Shape::Conversation {
        let talk = converse(Rc::clone(desk), mix.clone(), side, tag, sender, receiver);
        return desk.spawn(format!("talk {tag:#x} by {side}"), owner, talk);
    }
    let sends = send(Rc::clone(desk), mix.clone(), side, tag, sender);
    let receives = receive(Rc::clone(desk), mix.clone(), side, tag, receiver);
    if Shape::of(tag) == Shape::Call {
        desk.spawn(format!("call {tag:#x} by {side}"), owner, async move {
            if asks {
                sends.await;
                receives.await;
            } else {
                receives.await;
                sends.await;
            }
        });
    } else {
        desk.spawn(format!("send {tag:#x} by {side}"), owner, sends);
        desk.spawn(format!("recv {tag:#x} by {side}"), owner, receives);
    }
}

/// Only the wake for a message lets the other side continue.
async fn converse(
    desk: Rc<Desk>,
    mix: Mix,
    side: usize,
    tag: Tag,
    mut sender: SendStream,
    mut receiver: RecvStream,
) {
    let mut rng = plan(&desk, tag, 12 + side as u64);
    let (from, asks) = (1 - side, side == opener(tag));
    let turns = if asks {
        rng.range(1, mix.messages + 1)
    } else {
        usize::MAX
    };
    let (mut sent, mut seen) = (Ok(()), None);
    for turn in 0..=turns {
        if turn > 0 || !asks {
            seen = hear(&desk, from, tag, &mut receiver).await;
        }
        if seen.is_some() || turn == turns {
            break;
        }
        // Short enough for every peer.
        let len = length(&desk, &mut rng, &mix).min(60_000);
        let message = write_down(&desk, side, tag, len);
        sent = sender.send(message).await;
        if sent.is_err() {
            strike_out(&desk, side, tag);
            break;
        }
    }
    if sent.is_ok() {
        desk.ledger.borrow_mut().entry(tag).flows[side].finished = true;
        sent = sender.finish();
    }
    if let Err(error) = sent {
        desk.ledger.borrow_mut().entry(tag).flows[side].finished = false;
        desk.ledger.borrow_mut().refused(tag, side, &error);
        refuses_again(&desk, tag, &mut sender, &error).await;
    }
    end_sending(&desk, side, tag, sender);
    let seen = loop {
        match seen.take() {
            Some(seen) => break seen,
            None => seen = hear(&desk, from, tag, &mut receiver).await,
        }
    };
    desk.ledger.borrow_mut().received(tag, from, 0, &seen);
    ends_again(&desk, tag, &mut receiver, &seen).await;
}

/// The next message; the end, if there is none.
async fn hear(desk: &Desk, from: usize, tag: Tag, receiver: &mut RecvStream) -> Option<Seen> {
    match receiver.recv().await {
        Ok(Some(message)) => {
            desk.ledger.borrow_mut().message(tag, from, &message);
            None
        }
        Ok(None) => Some(Seen::Clean),
        Err(error) => Some(Seen::Error(error)),
    }
}

fn length(desk: &Desk, rng: &mut Rng, mix: &Mix) -> usize {
    let len = match rng.below(mix.long) {
        0 => rng.pick(&LONG),
        1 => rng.range(0, 20_000),
        _ => rng.pick(&SHORT),
    };
    let budget = desk.budget.get();
    if len > budget {
        return len % 300;
    }
    desk.budget.set(budget - len);
    len.min(LONGEST)
}

async fn send(desk: Rc<Desk>, mix: Mix, side: usize, tag: Tag, mut sender: SendStream) {
    let mut rng = plan(&desk, tag, 4 + side as u64);
    let code = 1000 + rng.below(1000) as u32;
    let messages = rng.below(mix.messages + 1);
    let rude = rng.one_in(mix.rude);
    let mut n = 0;
    while n < messages {
        if rng.one_in(12) {
            desk.sleep(rng.micros(3000)).await;
        }
        let done = match rng.below(16) {
            0 if mix.drpc => no_meta(&desk, tag, &mut sender).await,
            0 => meta(&desk, side, tag, &mut sender, rng.pick(&[0, 10, 8192])).await,
            1 => {
                sender.set_urgency(rng.below(10) as u8);
                Ok(())
            }
            2 => {
                let lens: Vec<_> = (0..rng.below(20))
                    .map(|_| length(&desk, &mut rng, &mix))
                    .collect();
                several(&desk, side, tag, &mut sender, &lens).await
            }
            _ => one(&desk, &mut rng, &mix, side, tag, &mut sender).await,
        };
        n += 1;
        match done {
            Ok(()) => {}
            Err(SendError::TooLong { .. }) => {}
            Err(error) => {
                desk.ledger.borrow_mut().refused(tag, side, &error);
                refuses_again(&desk, tag, &mut sender, &error).await;
                return end_sending(&desk, side, tag, sender);
            }
        }
    }
    if rng.one_in(mix.hold.0) {
        desk.sleep(Duration::from_millis(mix.hold.1 as u64)).await;
    }
    // Recorded before the call: the peer may see it before this task continues.
    let flow = |desk: &Desk, set: &dyn Fn(&mut ledger::Flow)| {
        set(&mut desk.ledger.borrow_mut().entry(tag).flows[side]);
    };
    let ended = match rng.below(4) {
        0 if rude => {
            flow(&desk, &|flow| flow.failed = Some(code));
            // Our own receiving half ends with it.
            desk.ledger.borrow_mut().entry(tag).codes.insert(code);
            sender.finish_with_error(code, &code.to_string())
        }
        1 if rude => {
            desk.ledger.borrow_mut().entry(tag).codes.insert(code);
            sender.cancel(code);
            Ok(())
        }
        2 if rude => return end_sending(&desk, side, tag, sender),
        _ => {
            flow(&desk, &|flow| flow.finished = true);
            sender.finish()
        }
    };
    desk.ledger.borrow_mut().half_ended(tag, side, 0);
    if let Err(error) = ended {
        flow(&desk, &|flow| (flow.finished, flow.failed) = (false, None));
        desk.ledger.borrow_mut().refused(tag, side, &error);
        refuses_again(&desk, tag, &mut sender, &error).await;
    }
    if rng.one_in(2) {
        desk.sleep(rng.micros(5000)).await;
    }
}

/// An end is final: a second call gets the same.
async fn refuses_again(desk: &Desk, tag: Tag, sender: &mut SendStream, error: &SendError) {
    let again = desk.within(Duration::ZERO, sender.stopped()).await;
    if again.as_ref().map(ToString::to_string) != Some(error.to_string()) {
        desk.fail(format!("{tag:#x} refused twice: {error}, then {again:?}"));
    }
}

/// Dropped before `finish`: the stream is cancelled.
fn end_sending(desk: &Desk, side: usize, tag: Tag, sender: SendStream) {
    let mut ledger = desk.ledger.borrow_mut();
    ledger.half_ended(tag, side, 0);
    ledger.entry(tag).codes.insert(codes::CANCELLED);
    drop(ledger);
    drop(sender);
}

/// Records a message in the ledger and returns its content.
fn write_down(desk: &Desk, side: usize, tag: Tag, len: usize) -> bytes::Bytes {
    let mut ledger = desk.ledger.borrow_mut();
    let sent = &mut ledger.entry(tag).flows[side].sent;
    sent.push(len);
    content(tag, side, sent.len() - 1, len)
}

fn strike_out(desk: &Desk, side: usize, tag: Tag) {
    desk.ledger.borrow_mut().entry(tag).flows[side].sent.pop();
}

async fn one(
    desk: &Desk,
    rng: &mut Rng,
    mix: &Mix,
    side: usize,
    tag: Tag,
    sender: &mut SendStream,
) -> Result<(), SendError> {
    let len = length(desk, rng, mix);
    let message = write_down(desk, side, tag, len);
    let result = match rng.below(4) {
        0 => sender.send_slice(&message).await,
        1 => match sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(crate::TrySendError::Full(_)) => {
                strike_out(desk, side, tag);
                return Ok(());
            }
            Err(crate::TrySendError::Refused { error, .. }) => Err(error),
        },
        2 => {
            // Given up if it has to wait: then it was not queued.
            let mut sending = pin!(sender.send(message));
            let once = std::future::poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx)));
            match once.await {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    strike_out(desk, side, tag);
                    return Ok(());
                }
            }
        }
        _ => sender.send(message).await,
    };
    if result.is_err() {
        strike_out(desk, side, tag);
    }
    result
}

async fn several(
    desk: &Desk,
    side: usize,
    tag: Tag,
    sender: &mut SendStream,
    lens: &[usize],
) -> Result<(), SendError> {
    // Recorded as they are taken, which is before they can be sent; the last one may be refused.
    let messages = lens.iter().map(|len| write_down(desk, side, tag, *len));
    let result = sender.send_all(messages).await;
    if result.is_err() {
        strike_out(desk, side, tag);
    }
    result
}

async fn meta(
    desk: &Desk,
    side: usize,
    tag: Tag,
    sender: &mut SendStream,
    len: usize,
) -> Result<(), SendError> {
    let metas = desk.ledger.borrow_mut().entry(tag).flows[side].metas;
    let result = sender.send_meta(content(tag, side, 1 << 40, len)).await;
    match result {
        Ok(()) => {
            desk.ledger.borrow_mut().entry(tag).flows[side].metas = metas + 1;
            Ok(())
        }
        Err(SendError::TooManyMetas) if metas == 2 => Ok(()),
        Err(error) => Err(error),
    }
}

/// DRPC has no blocks between messages.
async fn no_meta(desk: &Desk, tag: Tag, sender: &mut SendStream) -> Result<(), SendError> {
    match sender.send_meta("block").await {
        Err(SendError::NotCarried(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            desk.fail(format!("{tag:#x} has sent a block"));
            Ok(())
        }
    }
}

async fn receive(desk: Rc<Desk>, mix: Mix, side: usize, tag: Tag, mut receiver: RecvStream) {
    let mut rng = plan(&desk, tag, 8 + side as u64);
    let from = 1 - side;
    let code = 3000 + rng.below(1000) as u32;
    // How many messages it receives before it leaves.
    let patience = if rng.one_in(mix.rude) {
        rng.below(mix.messages + 1)
    } else {
        usize::MAX
    };
    let mode = rng.below(6);
    let slow = rng.one_in(4);
    let mut taken = 0;
    let seen = loop {
        if taken >= patience {
            let stops = rng.one_in(2);
            let said = if stops { code } else { codes::CANCELLED };
            desk.ledger.borrow_mut().entry(tag).codes.insert(said);
            if stops {
                receiver.stop(code);
                let patience = rng.micros(5000);
                if let Some(Ok(Some(message))) = desk.within(patience, receiver.recv()).await {
                    desk.fail(format!("{tag:#x}: {} bytes after a stop", message.len()));
                }
            }
            break Seen::Left;
        }
        if slow && rng.one_in(3) {
            desk.sleep(rng.micros(mix.pause)).await;
        }
        let got = match mode {
            0 => {
                read(
                    &desk,
                    from,
                    tag,
                    &mut receiver,
                    rng.pick(&[1, 100, 5000, 70_000]),
                )
                .await
            }
            1 | 2 => lease(&desk, &mut rng, from, tag, &mut receiver).await,
            _ => hear(&desk, from, tag, &mut receiver).await,
        };
        taken += 1;
        if let Some(seen) = got {
            break seen;
        }
    };
    let metas = receiver.metas().len();
    desk.ledger.borrow_mut().received(tag, from, metas, &seen);
    if matches!(seen, Seen::Clean) && Shape::of(tag) == Shape::Call && side == opener(tag) {
        desk.ledger.borrow_mut().answered(tag);
    }
    if rng.one_in(2) {
        desk.sleep(rng.micros(5000)).await;
    }
    ends_again(&desk, tag, &mut receiver, &seen).await;
}

/// An end is final: a second call gets the same.
async fn ends_again(desk: &Desk, tag: Tag, receiver: &mut RecvStream, seen: &Seen) {
    let first = match seen {
        Seen::Left => return,
        Seen::Clean => "a clean end".to_owned(),
        Seen::Error(error) => error.to_string(),
    };
    let again = match desk.within(Duration::ZERO, receiver.recv()).await {
        None => "nothing yet".to_owned(),
        Some(Ok(None)) => "a clean end".to_owned(),
        Some(Ok(Some(message))) => format!("{} bytes", message.len()),
        Some(Err(error)) => error.to_string(),
    };
    if again != first {
        desk.fail(format!("{tag:#x} ended twice: {first}, then {again}"));
    }
}

async fn lease(
    desk: &Desk,
    rng: &mut Rng,
    from: usize,
    tag: Tag,
    receiver: &mut RecvStream,
) -> Option<Seen> {
    match receiver.lease().await {
        Ok(Some(lease)) => {
            if rng.one_in(4) {
                desk.sleep(rng.micros(1000)).await;
            }
            let message = lease.to_contiguous();
            desk.ledger.borrow_mut().message(tag, from, &message);
            None
        }
        Ok(None) => Some(Seen::Clean),
        Err(error) => Some(Seen::Error(error)),
    }
}

async fn read(
    desk: &Desk,
    from: usize,
    tag: Tag,
    receiver: &mut RecvStream,
    room: usize,
) -> Option<Seen> {
    let mut memory = vec![0; room];
    let mut buf = ReadBuf::new(&mut memory);
    let mut receiver = std::pin::Pin::new(receiver);
    match std::future::poll_fn(|cx| receiver.as_mut().poll_read(cx, &mut buf)).await {
        Ok(()) if buf.filled().is_empty() => {
            // Empty messages at the end have no bytes.
            desk.ledger.borrow_mut().bytes(tag, from, &[]);
            Some(Seen::Clean)
        }
        Ok(()) => {
            desk.ledger.borrow_mut().bytes(tag, from, buf.filled());
            None
        }
        Err(error) => {
            desk.ledger.borrow_mut().bytes(tag, from, &[]);
            let error = error.into_inner().and_then(|error| error.downcast().ok());
            error.map(|error| Seen::Error(*error))
        }
    }
}
