//! Clients that return with new sessions, servers that restart, and the fates of sessions.

use std::rc::Rc;
use std::time::Duration;

use super::plan::{Fate, Plan};
use super::workload;
use super::world::{Desk, Owner};
use crate::bridge::tests::net::Rng;
use crate::bridge::tests::{A, D};
use crate::drpc::CancelForm;
use crate::handle::Session;

/// The time that a shutdown or a close may take beyond its grace, in all.
const CLOSING: Duration = Duration::from_secs(1);
/// Messages queued before a close may take this long, and the socket's end as long again.
const LINGER: Duration = Duration::from_secs(2);
/// How long a session is idle before it is inspected, or left.
const REST: Duration = Duration::from_secs(5);

/// Starts all processes of a plan.
pub(super) fn start(desk: &Rc<Desk>, plan: &Rc<Plan>) {
    for client in 0..plan.clients.len() {
        let keeper = Keeper {
            desk: Rc::clone(desk),
            plan: Rc::clone(plan),
            client,
            rng: Rng::of(desk.seed, 100 + client as u64),
        };
        desk.spawn(format!("client {client}"), Owner::Run, keeper.keep());
    }
}

/// A client: it keeps one session, and replaces it when that is lost.
struct Keeper {
    desk: Rc<Desk>,
    plan: Rc<Plan>,
    client: usize,
    rng: Rng,
}

/// A session as its client has it.
struct Dialled {
    pair: usize,
    session: Session,
    /// One of its sides accepts no more after some time.
    leaves: bool,
}

impl Keeper {
    async fn keep(mut self) {
        for _ in 0..self.plan.rounds {
            let first = self.dial();
            // A client that has lost patience dials again, and the first connection may still be completed.
            let patience = self.rng.micros(30_000);
            let duplicate = self.rng.one_in(3)
                && self
                    .desk
                    .within(patience, first.session.established())
                    .await
                    .is_none();
            if duplicate {
                self.desk.ledger.borrow_mut().count("duplicate");
                let second = self.dial();
                self.lose_interest(second).await;
            }
            self.lose_interest(first).await;
            let pause = self.rng.micros(200_000);
            self.desk.sleep(pause).await;
        }
    }

    /// Until a session takes no more streams, or all is done there.
    async fn lose_interest(
        &mut self,
        Dialled {
            pair,
            session,
            leaves,
        }: Dialled,
    ) {
        // A side that accepts no more must hold no handle either, else streams wait for it for ever.
        if leaves || self.rng.one_in(2) {
            return;
        }
        let mut idle = Box::pin(self.desk.idle(pair));
        let mut refused = Box::pin(session.draining());
        std::future::poll_fn(|cx| {
            let idle = idle.as_mut().poll(cx).is_ready();
            let refused = refused.as_mut().poll(cx).is_ready();
            if idle || refused {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }

    /// A connection with applications on both sides and a fate.
    fn dial(&mut self) -> Dialled {
        let server = self.rng.below(self.plan.servers.len());
        let fate = self.plan.fate(&mut self.rng);
        let mix = self.plan.mix(&mut self.rng);
        let desk = &self.desk;
        let seed = self.rng.next();
        let (pair, sessions) = self
            .plan
            .pair(desk.now(), [self.client, server], &fate, seed);
        let index = desk.connect(pair);
        {
            let mut ledger = desk.ledger.borrow_mut();
            let licence = ledger.licence(index);
            licence.fault = matches!(fate, Fate::Cut { .. } | Fate::Crash { .. });
            licence.freeze = matches!(fate, Fate::Freeze { .. });
            licence.mute = self.plan.is_slow();
            licence.stops = mix.calls.stops();
            // A cancel may close the connection.
            let hard = self
                .plan
                .drpc
                .is_some_and(|profile| profile.cancel == CancelForm::Hard);
            (licence.end, licence.closed) = (hard, hard);
            // Streams that are not accepted, or not read for long, stall; frozen ones may.
            licence.limits =
                self.plan.small || mix.pause > 100_000 || mix.leave.is_some() || licence.freeze;
        }
        for side in [D, A] {
            workload::start(desk, &mix, index, side, &sessions[side]);
        }
        desk.spawn(
            format!("end {index}"),
            Owner::Run,
            end_when_done(
                Rc::clone(desk),
                index,
                matches!(fate, Fate::AllIsDone) && mix.leave.is_none(),
            ),
        );
        if let Some((at, grace)) = self.plan.restarts[server] {
            let at = desk.start() + Duration::from_micros(at as u64);
            if let Some(after) = at.checked_duration_since(desk.now()) {
                shut_down(desk, index, A, &sessions[A], after, grace);
            }
        }
        meet(desk, index, &fate, &sessions);
        let [session, _] = sessions;
        let leaves = mix.leave.is_some();
        Dialled {
            pair: index,
            session,
            leaves,
        }
    }
}

/// Carries out the fate of a session.
fn meet(desk: &Rc<Desk>, pair: usize, fate: &Fate, sessions: &[Session; 2]) {
    match *fate {
        Fate::AllIsDone | Fate::Cut { .. } | Fate::Freeze { .. } => {}
        Fate::Close { side, after } => close(desk, pair, side, &sessions[side], after),
        Fate::Shutdown {
            sides,
            after,
            grace,
        } => {
            for side in [D, A].into_iter().filter(|side| sides[*side]) {
                shut_down(desk, pair, side, &sessions[side], after, grace);
            }
        }
        Fate::Crash { side, after, how } => {
            let d = Rc::clone(desk);
            desk.spawn(format!("crash {pair}/{side}"), Owner::Run, async move {
                d.sleep(after).await;
                d.crash(pair, side, how);
            });
        }
    }
}

fn close(desk: &Rc<Desk>, pair: usize, side: usize, session: &Session, after: Duration) {
    let (d, session) = (Rc::clone(desk), session.clone());
    desk.spawn(
        format!("close {pair}/{side}"),
        Owner::Busy(pair),
        async move {
            d.sleep(after).await;
            {
                let mut ledger = d.ledger.borrow_mut();
                let licence = ledger.licence(pair);
                (licence.end, licence.closed) = (true, true);
                licence.mute |= !session.link().is_established();
            }
            session.close();
            d.must_close(pair, side, LINGER + CLOSING);
        },
    );
}

fn shut_down(
    desk: &Rc<Desk>,
    pair: usize,
    side: usize,
    session: &Session,
    after: Duration,
    grace: Duration,
) {
    let (d, session) = (Rc::clone(desk), session.clone());
    desk.spawn(
        format!("shutdown {pair}/{side}"),
        Owner::Busy(pair),
        async move {
            d.sleep(after).await;
            {
                let mut ledger = d.ledger.borrow_mut();
                let licence = ledger.licence(pair);
                licence.end = true;
                // The accepting side sends nothing before the dialler's preface.
                licence.mute |= !session.link().is_established();
            }
            d.must_close(pair, side, grace + CLOSING);
            // A session that has ended already reports nothing.
            let late = session.state().end().is_some();
            let report = session.shutdown(grace).await;
            if !late {
                d.ledger.borrow_mut().shut_down(pair, side, report);
            }
        },
    );
}

/// When all is done the session must be as at its start; then its last handles are dropped, and it ends with them.
pub(super) async fn end_when_done(desk: Rc<Desk>, pair: usize, calm: bool) {
    // Streams that are accepted late make it busy again.
    loop {
        desk.idle(pair).await;
        desk.sleep(REST).await;
        if desk.is_idle(pair) {
            break;
        }
    }
    let undisturbed = {
        let mut ledger = desk.ledger.borrow_mut();
        let licence = ledger.licence(pair);
        !licence.end && !licence.unread
    };
    if calm && undisturbed {
        desk.inspect(pair);
    }
    desk.ledger.borrow_mut().licence(pair).end = true;
    desk.dismiss(pair);
}
