//! One thread: who has what, and what is left of it.

use std::task::Waker;

use super::*;

type Plain = Spare<(), Vec<u32>, String>;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The engine's side of the call that a node asks for.
fn asked(node: Arc<Cell<(), Vec<u32>, String>>) -> EngineSide<(), Vec<u32>, String> {
    match Cell::activated(node) {
        Activated::Asked(side, None) => side,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_goes_to_the_engine_its_answer_comes_back_and_the_cell_is_used_again() {
    let mut spare = Plain::new((), Vec::new());
    for round in 0..3 {
        spare.out().push(round);
        let (mut app, node) = spare.ask();
        assert!(app.out().is_none() && app.poll(&cx()).is_pending());
        let mut engine = asked(node);
        assert_eq!(engine.out().unwrap().len(), round as usize + 1);
        engine.give("answer".to_owned());
        engine.give("another".to_owned());
        engine.wake();
        assert_eq!(app.poll(&cx()), Poll::Ready("answer".to_owned()));
        drop(engine);
        spare = app.reclaim().expect("no one else has it");
    }
    assert_eq!(*spare.out(), [0, 1, 2]);
}

#[test]
fn a_cell_is_not_used_again_while_the_other_side_or_the_list_has_it() {
    let (app, node) = Plain::new((), Vec::new()).ask();
    let mut engine = asked(node);
    engine.give(String::new());
    assert!(app.reclaim().is_none());
    assert!(engine.reclaim().is_some(), "the last one");
    let (app, node) = Plain::new((), Vec::new()).ask();
    assert!(app.reclaim().is_none());
    drop(node);
}

#[test]
fn a_handler_sends_once_and_is_told_when_its_caller_goes() {
    let (mut app, mut engine) = Plain::new((), Vec::new()).offer();
    engine.set_key(Some(7));
    assert!(engine.out().is_none() && !engine.is_taken());
    app.mark_taken();
    assert!(engine.is_taken());
    engine.give("gone".to_owned());
    assert_eq!(app.poll(&cx()), Poll::Ready("gone".to_owned()));
    app.out().unwrap().push(1);
    let node = app.send().expect("it is on no list");
    match Cell::activated(node) {
        Activated::Answered(Some(7), sent) => engine.accept(sent),
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.out().unwrap(), &[1]);
    assert!(engine.reclaim().is_some());
}

#[test]
fn a_cancel_tells_the_engine_its_code_and_what_was_not_taken() {
    let (app, node) = Plain::new((), Vec::new()).ask();
    assert!(app.cancel(3).is_none(), "it is on the list");
    assert!(matches!(
        Cell::activated(node),
        Activated::Asked(_, Some(3))
    ));

    let (app, node) = Plain::new((), Vec::new()).ask();
    let mut engine = asked(node);
    engine.set_key(Some(9));
    engine.give("late".to_owned());
    let node = app.cancel(4).expect("it is on no list");
    match Cell::activated(node) {
        Activated::Cancelled(Some(9), 4, Some(left)) => assert_eq!(left, "late"),
        other => panic!("{other:?}"),
    }
}
