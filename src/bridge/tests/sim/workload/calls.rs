//! Callers and handlers of unary calls.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use super::ledger::{self, Did, Tag, block, content, words};
use super::{Desk, Mix, Owner, pair_of, plan, receive, send};
use crate::bridge::tests::net::Rng;
use crate::error::{SessionError, codes};
use crate::handle::Session;
use crate::handle::call::{Acceptor, Answer, Arrival, IncomingCall, PendingCall, Request};

/// Calls are numbered from here on; streams below.
const FIRST: usize = 1 << 16;
/// Attempts to begin a call.
const ATTEMPTS: usize = 4;
/// How long a side that has stopped taking calls takes streams alone, if none arrives.
const BREAK: Duration = Duration::from_millis(5);
/// How long a handler waits for its caller to go.
const FOR_LONG: Duration = Duration::from_millis(300);
/// The same of a few: long enough for a cancel over a network that is not slow.
const TO_THE_END: Duration = Duration::from_secs(6);
/// Of requests and answers; the last one of requests, with its opening block, does not fit into a frame.
const REQUESTS: [usize; 9] = [0, 1, 7, 100, 512, 513, 4096, 16_374, 16_375];
const ANSWERS: [usize; 9] = [0, 1, 8, 255, 512, 513, 5000, 16_384, 16_385];

/// The calls of a run.
#[derive(Clone, Debug, Default)]
pub(in crate::bridge::tests::sim) struct CallMix {
    /// Calls that each side makes.
    pub(in crate::bridge::tests::sim) made: [usize; 2],
    /// Whether each side takes calls.
    pub(in crate::bridge::tests::sim) taken: [Serving; 2],
}

impl CallMix {
    /// Whether a side may stop taking calls.
    pub(in crate::bridge::tests::sim) fn stops(&self) -> bool {
        let mut shifts = self.taken.iter();
        shifts.any(|serving| matches!(serving, Serving::Shifts(_)))
    }
}

/// Whether a side takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bridge::tests::sim) enum Serving {
    #[default]
    Never,
    Always,
    /// So many arrivals, then streams alone for as many, and so on.
    Shifts(usize),
}

/// Takes the streams of the peer, and its calls while it serves.
pub(super) struct Taker {
    session: Session,
    serving: Serving,
    acceptor: Option<Acceptor>,
    /// Arrivals of this shift.
    arrivals: usize,
}

impl Taker {
    pub(super) fn new(session: &Session, serving: Serving) -> Self {
        let serves = serving != Serving::Never;
        Self {
            session: session.clone(),
            serving,
            acceptor: serves.then(|| Acceptor::new(session.clone())),
            arrivals: 0,
        }
    }

    fn change_shifts(&mut self) {
        self.arrivals = 0;
        self.acceptor = match self.acceptor.take() {
            Some(_) => None,
            None => Some(Acceptor::new(self.session.clone())),
        };
    }

    pub(super) async fn next(&mut self, desk: &Desk) -> Result<Option<Arrival>, SessionError> {
        loop {
            if matches!(self.serving, Serving::Shifts(most) if self.arrivals >= most) {
                self.change_shifts();
            }
            self.arrivals += 1;
            if let Some(acceptor) = &mut self.acceptor {
                return poll_fn(|cx| acceptor.poll(cx)).await;
            }
            let next = self.session.accept();
            let next = match self.serving {
                Serving::Shifts(_) => desk.within(BREAK, next).await,
                Serving::Never | Serving::Always => Some(next.await),
            };
            match next {
                Some(next) => {
                    return next.map(|next| next.map(|(send, recv)| Arrival::Stream(send, recv)));
                }
                None => self.change_shifts(),
            }
        }
    }
}

// ---- callers ------------------------------------------------------------------------------------

pub(super) fn start(desk: &Rc<Desk>, mix: &Mix, pair: usize, side: usize, session: &Session) {
    if mix.calls.made[side] == 0 {
        return;
    }
    let calls = make(Rc::clone(desk), mix.clone(), pair, side, session.clone());
    let name = format!("calls {pair}/{side}");
    desk.spawn(name, Owner::Busy(pair), calls);
}

async fn make(desk: Rc<Desk>, mix: Mix, pair: usize, side: usize, session: Session) {
    let mut rng = plan(&desk, ledger::tag(pair, side, FIRST), 20);
    let hello = rng.pick(&[0, 100_000]);
    let hello = rng.micros(hello);
    drop(desk.within(hello, session.established()).await);
    for n in 0..mix.calls.made[side] {
        if rng.one_in(3) {
            desk.sleep(rng.micros(3000)).await;
        }
        let tag = ledger::tag(pair, side, FIRST + n);
        for attempt in 0..ATTEMPTS {
            if let Some(call) = begin(&desk, &mut rng, side, tag, &session) {
                ask(&desk, &mix, &mut rng, side, tag, call);
                break;
            }
            if attempt + 1 == ATTEMPTS || session.state().end().is_some() {
                desk.ledger.borrow_mut().count("call: not begun");
                break;
            }
            desk.sleep(rng.micros(5000)).await;
        }
    }
}

fn begin(
    desk: &Desk,
    rng: &mut Rng,
    side: usize,
    tag: Tag,
    session: &Session,
) -> Option<PendingCall<'static>> {
    let opening = block(tag, rng.pick(&[8, 8, 10, 300, 600]));
    let len = if rng.one_in(2) {
        rng.below(300)
    } else {
        rng.pick(&REQUESTS)
    };
    let request = content(tag, side, 0, len);
    let time = rng.pick(&[0, 1000, 20_000, 300_000]);
    let deadline = rng.one_in(3).then(|| desk.now() + rng.micros(time));
    let put = |block: &mut Vec<u8>| block.extend_from_slice(&opening);
    let mut asked = match rng.one_in(4) {
        true => Request::from(request.clone()),
        false => Request::raw(session, &request),
    };
    let session = Cow::Owned(session.clone());
    let call = PendingCall::begin(&session, put, &mut asked, deadline);
    if call.is_some() {
        desk.ledger.borrow_mut().call_begun(tag, len, deadline);
    } else {
        let message = asked.take_message(&session);
        if message != request {
            let len = message.len();
            desk.fail(format!("{tag:#x}: {len} bytes are given back"));
        }
    }
    call
}

/// Has a task wait for the end of the call, or gives it up at once.
fn ask(
    desk: &Rc<Desk>,
    mix: &Mix,
    rng: &mut Rng,
    side: usize,
    tag: Tag,
    mut call: PendingCall<'static>,
) {
    let code = 5000 + rng.below(1000) as u32;
    if rng.one_in(mix.rude * 4) {
        give_up(desk, tag, &mut call, code, true);
        return;
    }
    let patience = rng.one_in(mix.rude * 2).then(|| {
        let most = rng.pick(&[0, 200, 3000, 30_000]);
        rng.micros(most)
    });
    let code = if rng.one_in(2) {
        code
    } else {
        codes::CANCELLED
    };
    let end = await_end(
        Rc::clone(desk),
        mix.clone(),
        side,
        tag,
        call,
        code,
        patience,
    );
    let owner = Owner::Busy(pair_of(tag));
    desk.spawn(format!("caller {tag:#x}"), owner, end);
}

fn give_up(desk: &Desk, tag: Tag, call: &mut PendingCall<'static>, code: u32, at_once: bool) {
    let now = desk.now();
    (desk.ledger.borrow_mut()).call_given_up(tag, code, at_once, now);
    call.cancel(code);
}

async fn await_end(
    desk: Rc<Desk>,
    mix: Mix,
    side: usize,
    tag: Tag,
    mut call: PendingCall<'static>,
    code: u32,
    patience: Option<Duration>,
) {
    let ended = poll_fn(|cx| call.poll(cx));
    let ended = match patience {
        Some(patience) => desk.within(patience, ended).await,
        None => Some(ended.await),
    };
    let Some(answer) = ended else {
        return give_up(&desk, tag, &mut call, code, false);
    };
    let now = desk.now();
    match answer {
        Answer::Message(answer, _) => desk.ledger.borrow_mut().call_answered(tag, &answer, now),
        Answer::Failed(error) => desk.ledger.borrow_mut().call_failed(tag, &error, now),
        Answer::Stream(halves) => {
            let (send, recv) = *halves;
            desk.ledger.borrow_mut().call_streams(tag, now);
            receive(Rc::clone(&desk), mix, side, tag, recv).await;
            // A cancel, unless the stream is over.
            let mut ledger = desk.ledger.borrow_mut();
            ledger.entry(tag).codes.insert(codes::CANCELLED);
            drop(send);
        }
    }
}

// ---- handlers -----------------------------------------------------------------------------------

/// A call has been taken.
pub(super) fn handle(desk: &Rc<Desk>, mix: &Mix, pair: usize, side: usize, mut call: IncomingCall) {
    let opening = call.slice_of_opening(call.opening());
    let tag = ledger::named(&opening);
    let request = call.take_request();
    (desk.ledger.borrow_mut()).call_taken(pair, side, tag, &opening, &request);
    let work = work(Rc::clone(desk), mix.clone(), side, tag, call);
    desk.spawn(format!("handler {tag:#x}"), Owner::Busy(pair), work);
}

async fn work(desk: Rc<Desk>, mix: Mix, side: usize, tag: Tag, mut call: IncomingCall) {
    let mut rng = plan(&desk, tag, 22);
    let time = match rng.below(8) {
        0..3 => Duration::ZERO,
        3..6 => rng.micros(3000),
        6 => rng.micros(40_000),
        _ if rng.one_in(4) => TO_THE_END,
        _ => FOR_LONG,
    };
    if rng.one_in(4) {
        // It does not look whether its caller has gone.
        desk.sleep(rng.micros(3000)).await;
    }
    if let Some(error) = desk.within(time, poll_fn(|cx| call.poll_gone(cx))).await {
        let now = desk.now();
        desk.ledger.borrow_mut().call_gone(tag, side, &error, now);
        return too_late(&desk, &mut rng, tag, call).await;
    }
    let len = rng.pick(&ANSWERS);
    let code = 1 + rng.below(1000) as u32;
    let did = match rng.below(8) {
        0 => Did::Fail(code),
        1 => Did::Drop,
        2 => Did::Stream,
        _ if call.fits(len) => Did::Answer(len),
        _ => Did::Stream,
    };
    let now = desk.now();
    desk.ledger.borrow_mut().call_done(tag, did, now);
    match did {
        Did::Answer(len) => call.reply(content(tag, side, 0, len)),
        Did::Fail(code) => {
            let (text, details) = words(code);
            call.fail(code, &text, &details);
        }
        Did::Drop => {}
        Did::Stream => {
            let sender = call.become_stream().expect("it has not ended");
            drop(call);
            return send(desk, mix, side, tag, sender).await;
        }
    }
    if rng.one_in(2) {
        desk.sleep(rng.micros(2000)).await;
    }
}

/// Whatever a handler does for a caller that has gone has no effect.
async fn too_late(desk: &Desk, rng: &mut Rng, tag: Tag, mut call: IncomingCall) {
    if rng.one_in(2) {
        desk.sleep(rng.micros(20_000)).await;
    }
    match rng.below(4) {
        0 => call.reply(content(tag, 0, 0, 7)),
        1 => call.fail(1, "too late", &[]),
        2 => {
            let mut sender = call.become_stream().expect("the handler has not ended it");
            // Each of its sends ends, as the stream has.
            while sender.send("too late").await.is_ok() {}
        }
        _ => {}
    }
}
