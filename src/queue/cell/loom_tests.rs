//! A caller, or a handler, and the engine: every order of their steps, with answers, cancels, drops and the close of the list.

use std::task::Waker;

use loom::thread;

use super::super::ready::ReadyList;
use super::*;

type List = ReadyList<Cell<(), u32, u32>>;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The engine: answers each call with its request and one. Returns the cancels that it saw.
fn serve(list: &List) -> usize {
    let mut cancels = 0;
    let mut calls = Vec::new();
    for round in 0..2 {
        let nodes = match round {
            0 => list.take_all(),
            _ => list.close(),
        };
        for node in nodes {
            match Cell::activated(node) {
                Activated::Asked(mut side, cancelled) => {
                    cancels += usize::from(cancelled.is_some());
                    let request = *side.out().unwrap();
                    side.give(request + 1);
                    side.wake();
                    calls.push(side);
                }
                Activated::Cancelled(..) => cancels += 1,
                Activated::Answered(..) => panic!("no handler"),
            }
        }
    }
    cancels
}

#[test]
fn a_caller_gets_the_answer_to_its_own_request_or_its_cancel_is_seen_once() {
    loom::model(|| {
        let list = Arc::new(List::new());
        let engine = {
            let list = Arc::clone(&list);
            thread::spawn(move || serve(&list))
        };
        let (mut app, node) = Spare::new((), 6).ask();
        let _pushed = list.push(node);
        let mut cancels = 0;
        match app.take() {
            Some(answer) => {
                assert_eq!(answer, 7);
                if let Some(mut spare) = app.reclaim() {
                    assert_eq!(*spare.out(), 6);
                }
            }
            None => {
                cancels = 1;
                if let Some(node) = app.cancel(1) {
                    let _pushed = list.push(node);
                }
            }
        }
        let seen = engine.join().unwrap();
        assert!(seen <= cancels, "{seen} of {cancels}");
    });
}

#[test]
fn a_caller_that_gives_up_at_the_end_of_its_session_leaves_alone_what_the_engine_writes() {
    loom::model(|| {
        let list = Arc::new(List::new());
        let (mut app, node) = Spare::new((), 6).ask();
        list.push(node).unwrap();
        let engine = {
            let list = Arc::clone(&list);
            thread::spawn(move || {
                let mut calls = Vec::new();
                let mut cancels = 0;
                for node in list.close() {
                    match Cell::activated(node) {
                        Activated::Asked(side, cancelled) => {
                            cancels += usize::from(cancelled.is_some());
                            calls.push(side);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                for mut side in calls {
                    side.give(9);
                    side.wake();
                }
                cancels
            })
        };
        let mut seen = 0;
        if app.take().is_none()
            && let Some(node) = app.cancel(1)
            && let Err(node) = list.push(node)
        {
            seen = 1;
            match Cell::activated(node) {
                Activated::Cancelled(None, 1, None | Some(9)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(engine.join().unwrap() + seen <= 1);
    });
}

#[test]
fn a_caller_that_waits_gets_its_answer_and_the_cell() {
    loom::model(|| {
        let list = Arc::new(List::new());
        let (mut app, node) = Spare::new((), 6).ask();
        list.push(node).unwrap();
        let engine = {
            let list = Arc::clone(&list);
            thread::spawn(move || serve(&list))
        };
        let early = app.poll(&cx());
        engine.join().unwrap();
        let answer = match early {
            Poll::Ready(answer) => answer,
            Poll::Pending => app.take().expect("given"),
        };
        assert_eq!(answer, 7);
        assert!(app.reclaim().is_some());
    });
}

#[test]
fn a_handler_that_waits_is_told_and_its_answer_is_taken_once() {
    loom::model(|| {
        let list = Arc::new(List::new());
        let (mut app, mut engine) = Spare::new((), 0).offer();
        engine.set_key(Some(5));
        let handler = {
            let list = Arc::clone(&list);
            thread::spawn(move || {
                let _told = app.poll(&cx());
                if let Some(out) = app.out() {
                    *out = 8;
                }
                let node = app.send().expect("once");
                list.push(node).unwrap();
            })
        };
        engine.give(1);
        engine.wake();
        let mut answers = 0;
        let mut take = |engine: &mut EngineSide<(), u32, u32>,
                        nodes: super::super::TakenNodes<_>| {
            for node in nodes {
                match Cell::activated(node) {
                    Activated::Answered(Some(5), sent) => {
                        engine.accept(sent);
                        answers += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        take(&mut engine, list.take_all());
        handler.join().unwrap();
        take(&mut engine, list.take_all());
        assert_eq!(answers, 1);
        assert_eq!(engine.out(), Some(&8));
        assert_eq!(engine.reclaim().map(|mut spare| *spare.out()), Some(8));
    });
}
