//! What operations come to, step by step, with a daemon of words.

use super::*;
use crate::abi::ECANCEL;
use mxlock_client::{LvbValue, QualifiedName, Token};

const LKID: u32 = 9;
const CAST: Callback = Callback { function: 0x10000, argument: 1 };
const BAST: Callback = Callback { function: 0x20000, argument: 1 };
const LKSB: LksbAt = LksbAt(0x30000);

fn resource() -> Resource {
    Resource::named(QualifiedName::new(b"alpha", b"a").unwrap())
}

fn grant(mode: Mode, lvb: Option<LvbValue>) -> Answer {
    Answer::Granted(Grant { mode, token: Token(1), lvb, valid_until_ns: u64::MAX })
}

fn say(book: &mut Book, op: u32, answer: Answer) -> Todo {
    book.take_in(Event::Answer { seq: 5, op, answer }, 100)
}

/// A book with one lock in it, which was asked for and not answered.
fn asked(ticket: bool, reads_value: bool, until_ns: Option<u64>) -> (Book, Option<Ticket>) {
    let mut book = Book::default();
    let ticket = ticket.then(|| book.ticket());
    let spec = LockSpec::new(resource());
    book.insert(LKID, Lock::new(CAST, BAST, LKSB, Operation::new(Asked::Lock(spec), ticket, until_ns, reads_value)));
    book.submitted(LKID, 5, 0);
    (book, ticket)
}

fn held() -> Book {
    let (mut book, _) = asked(false, false, None);
    say(&mut book, 0, grant(Mode::EX, None));
    assert_eq!(told(&mut book), [(0, 0)]);
    book
}

fn convert(book: &mut Book, op: u32, ticket: Option<Ticket>) {
    assert!(book.convertible(LKID).is_ok());
    let asked = Asked::Convert(ConvertSpec::new(Mode::PR));
    book.convert(LKID, CAST, BAST, LKSB, Operation::new(asked, ticket, None, false));
    book.submitted(LKID, 5, op);
}

fn unlock(book: &mut Book, ticket: Option<Ticket>) -> Result<Unlock, Errno> {
    book.unlock(LKID, UnlockSpec::default(), 0, LKSB, ticket)
}

/// Status and flags of the ASTs that wait.
fn told(book: &mut Book) -> Vec<(c_int, i32)> {
    let of = |delivery| match delivery {
        Delivery::Ast(completion, CAST) => (completion.status, completion.flags.into()),
        other => panic!("{other:?}"),
    };
    book.queue.drain(..).map(of).collect()
}

/// A NOQUEUE failure comes by AST, and the lock is at the end of its life.
#[test]
fn a_refused_request_is_gone() {
    let (mut book, _) = asked(false, false, None);
    say(&mut book, 0, Answer::Denied(Denial::Busy));
    assert_eq!(told(&mut book), [(libc::EAGAIN, 0)]);
    assert_eq!(unlock(&mut book, None), Err(Errno::ENOENT));
    assert_eq!(book.convertible(LKID), Err(Errno::ENOENT));
}

/// fs/dlm/lock.c, `validate_lock_args`: one operation at a time; a refused conversion leaves the lock.
#[test]
fn a_lock_is_busy_while_it_is_converted() {
    let mut book = held();
    convert(&mut book, 1, None);
    assert_eq!(book.convertible(LKID), Err(Errno::EBUSY));
    say(&mut book, 1, Answer::Denied(Denial::Deadlock));
    assert_eq!(told(&mut book), [(libc::EDEADLK, 0)]);
    assert_eq!(book.convertible(LKID), Ok(Mode::EX));
    // An answer to an earlier operation is not one to this.
    convert(&mut book, 2, None);
    say(&mut book, 1, grant(Mode::PR, None));
    assert_eq!(told(&mut book), []);
}

/// The status block says what was granted and what the value is worth.
#[test]
fn flags_tell_of_alternatives_demotions_and_values() {
    let (mut book, _) = asked(false, true, None);
    say(&mut book, 0, grant(Mode::PR, Some(LvbValue { bytes: b"short".to_vec(), valid: false })));
    let Some(Delivery::Ast(completion, _)) = book.queue.pop_front() else { panic!() };
    assert_eq!(completion.flags, abi::DLM_SBF_ALTMODE | abi::DLM_SBF_VALNOTVALID);
    assert_eq!(completion.value.unwrap()[..6], *b"short\0");
    let (mut book, _) = asked(false, true, None);
    let grant = Grant { mode: Mode::EX, token: Token(1), lvb: None, valid_until_ns: u64::MAX };
    say(&mut book, 0, Answer::GrantedDemoted(grant));
    let Some(Delivery::Ast(completion, _)) = book.queue.pop_front() else { panic!() };
    assert_eq!((completion.flags, completion.value), (abi::DLM_SBF_DEMOTED, Some([0; DLM_LVB_LEN])));
}

/// What was given up is told with the answer, also if the conversion had to be asked again in between, and if it is denied.
#[test]
fn a_demotion_is_told_with_every_answer() {
    let demoted = i32::from(abi::DLM_SBF_DEMOTED);
    let mut book = held();
    convert(&mut book, 1, None);
    assert_eq!(say(&mut book, 1, Answer::DeniedDemoted(Denial::LeaseLost)), Todo::Again(LKID));
    book.submitted(LKID, 5, 2);
    say(&mut book, 2, grant(Mode::PR, None));
    assert_eq!(told(&mut book), [(0, demoted)]);
    convert(&mut book, 3, None);
    say(&mut book, 3, Answer::DeniedDemoted(Denial::Cancelled));
    assert_eq!(told(&mut book), [(ECANCEL, demoted)]);
    assert_eq!(book.convertible(LKID), Ok(Mode::NL));
    convert(&mut book, 4, None);
    say(&mut book, 4, grant(Mode::PR, None));
    assert_eq!(told(&mut book), [(0, 0)], "this one gave nothing up");
}

/// fs/dlm/lock.c, `set_lvb_lock`: a conversion that writes or invalidates the value leaves the program's buffer alone, and
/// says nothing of what the value was worth.
#[test]
fn a_conversion_that_writes_the_value_brings_none() {
    let mut book = held();
    let stale = || Some(LvbValue { bytes: b"old".to_vec(), valid: false });
    for (op, mode, brings) in [(1, Mode::PW, false), (2, Mode::EX, true), (3, Mode::EX, false), (4, Mode::CR, false)] {
        convert(&mut book, op, None);
        book.get_mut(LKID).unwrap().operation.as_mut().unwrap().reads_value = true;
        say(&mut book, op, grant(mode, stale()));
        let Some(Delivery::Ast(completion, _)) = book.queue.pop_front() else { panic!() };
        assert_eq!(completion.value.is_some(), brings, "to {mode:?}");
        assert_eq!(completion.flags & abi::DLM_SBF_VALNOTVALID != 0, brings, "to {mode:?}");
    }
}

/// One AST ends both a request that waits and the unlock that ends it; who waited for the request hears it as well.
#[test]
fn an_unlock_overtakes_what_is_under_way() {
    let (mut book, ticket) = asked(true, false, None);
    assert_eq!(unlock(&mut book, None), Ok(Unlock::Submit(5)));
    assert_eq!(unlock(&mut book, None), Err(Errno::EBUSY));
    say(&mut book, 0, Answer::Denied(Denial::Cancelled));
    assert!(book.done.is_empty() && book.queue.is_empty());
    say(&mut book, UNLOCK_OP, Answer::Unlocked);
    assert_eq!(told(&mut book), [(EUNLOCK, 0)]);
    assert_eq!(book.done.remove(&ticket.unwrap()).unwrap().status, EUNLOCK);
    assert!(book.is_empty());
}

/// A cancellation is told as the end of what it cancels; one by `dlm_ls_deadlock_cancel` as EDEADLK. Not twice, except
/// the latter (`validate_unlock_args` does not see that it is one).
#[test]
fn cancellations_end_as_they_should() {
    let mut book = held();
    assert_eq!(book.cancel(LKID, 0, LKSB, false), Ok(Cancel::Nothing));
    for (op, deadlock, status) in [(1, false, ECANCEL), (2, true, libc::EDEADLK)] {
        convert(&mut book, op, None);
        assert_eq!(book.cancel(LKID, 0, LKSB, deadlock), Ok(Cancel::Submit(5)));
        let again = if deadlock { Ok(Cancel::Submit(5)) } else { Err(Errno::EINVAL) };
        assert_eq!(book.cancel(LKID, 0, LKSB, deadlock), again);
        say(&mut book, op, Answer::Denied(Denial::Cancelled));
        assert_eq!(told(&mut book), [(status, 0)]);
    }
}

/// What cannot be decided now is asked for again, until it is cancelled, unlocked or out of time.
#[test]
fn requests_wait_for_a_lease() {
    let (mut book, _) = asked(false, false, Some(150));
    assert_eq!(say(&mut book, 0, Answer::Denied(Denial::LeaseLost)), Todo::Again(LKID));
    assert_eq!(told(&mut book), []);
    book.submitted(LKID, 6, 0);
    let late = Event::Answer { seq: 6, op: 0, answer: Answer::Denied(Denial::Isolated) };
    assert_eq!(book.take_in(late, 150), Todo::Nothing);
    assert_eq!(told(&mut book), [(libc::ETIMEDOUT, 0)]);

    let (mut book, _) = asked(false, false, None);
    say(&mut book, 0, Answer::Denied(Denial::ShuttingDown));
    assert_eq!(book.cancel(LKID, 0, LKSB, false), Ok(Cancel::Done));
    assert_eq!(told(&mut book), [(ECANCEL, 0)]);

    let (mut book, _) = asked(false, false, None);
    say(&mut book, 0, Answer::Denied(Denial::LeaseLost));
    assert_eq!(unlock(&mut book, None), Ok(Unlock::Done));
    assert_eq!(told(&mut book), [(EUNLOCK, 0)]);

    let mut book = held();
    assert_eq!(unlock(&mut book, None), Ok(Unlock::Submit(5)));
    assert_eq!(say(&mut book, UNLOCK_OP, Answer::Denied(Denial::LeaseLost)), Todo::Again(LKID));
    assert_eq!(book.unlock_again(LKID), Some((5, UnlockSpec::default())));
    assert_eq!(book.unlock_again(LKID), None);
}

/// A lost lock is gone, and the process hears of it, unless it held nothing by it or was giving it up.
#[test]
fn lost_locks_are_noticed() {
    let mut book = held();
    book.take_in(Event::Lost { seq: 5, loss: Loss::Lease }, 100);
    assert_eq!((book.loss, book.is_empty()), (Some(Loss::Lease), true));

    let (mut book, _) = asked(false, false, None);
    say(&mut book, 0, grant(Mode::NL, None));
    book.take_in(Event::Lost { seq: 5, loss: Loss::Lease }, 100);
    assert_eq!(book.loss, None);

    let mut book = held();
    let ticket = book.ticket();
    unlock(&mut book, Some(ticket)).unwrap();
    book.take_in(Event::Lost { seq: 5, loss: Loss::Lease }, 100);
    assert_eq!((book.loss, book.done[&ticket].status), (None, EUNLOCK));
}

/// A notice calls the function of the last conversion with the AST's argument; none, and none that cannot be code, is called.
#[test]
fn notices_go_to_functions_that_are_there() {
    let mut book = held();
    let notice = || Event::Bast { seq: 5, wanted: Mode::PR };
    book.take_in(notice(), 100);
    assert_eq!(book.queue.pop_front(), Some(Delivery::Bast(BAST)));
    book.get_mut(LKID).unwrap().bast.function = 1;
    book.take_in(notice(), 100);
    assert_eq!(book.queue.pop_front(), None);
}

/// fs/dlm/lock.c, `purge_proc_locks`: nobody is told, not even of what had come already.
#[test]
fn purged_locks_end_in_silence() {
    let mut book = held();
    convert(&mut book, 1, None);
    say(&mut book, 1, grant(Mode::PR, None));
    assert_eq!(book.purge(), [5]);
    assert!(book.queue.is_empty());
    say(&mut book, UNLOCK_OP, Answer::Unlocked);
    assert!(book.queue.is_empty() && book.is_empty());
}
