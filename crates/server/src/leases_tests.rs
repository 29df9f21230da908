//! The table alone, without clock or messages.

use super::*;

const A: SessionId = SessionId(11);
const B: SessionId = SessionId(12);
const NOBODY: SessionId = SessionId(0);
const FILE: InodeNumber = InodeNumber(7);
const START: Duration = Duration::from_secs(100);

fn leases() -> Rc<Leases> {
    let leases = Rc::new(Leases::default());
    for holder in [A, B] {
        leases.open(holder, holder.0, false);
        assert_eq!(leases.heard(holder, 0), Some(holder.0));
        assert!(leases.grant(FILE, Lease::ALL, holder, START).is_none(), "not present yet");
        assert_eq!(leases.heard(holder, holder.0), Some(holder.0));
    }
    leases
}

fn claim(leases: &Rc<Leases>, lease: Lease, by: SessionId, now: Duration) -> Claim {
    leases.claim(vec![Conflict { inode: FILE, lease, brief: Lease::CONTENT }], by, now)
}

fn asked(leases: &Leases, holder: SessionId) -> Vec<Lease> {
    let found = leases.revocations(holder, 0).expect("alive");
    found.into_iter().map(|revocation| revocation.lease).collect()
}

#[test]
fn a_change_asks_others_and_spares_its_own_holder() {
    let leases = leases();
    assert_eq!(leases.grant(FILE, Lease::ALL, A, START), Lease::ALL);
    assert_eq!(leases.grant(FILE, Lease::ALL, B, START), Lease::ALL);
    let change = claim(&leases, Lease::ATTRIBUTES, A, START);
    assert!(!change.is_clear());
    assert_eq!(asked(&leases, B), [Lease::ATTRIBUTES]);
    assert!(asked(&leases, A).is_empty());
    assert!(leases.grant(FILE, Lease::ATTRIBUTES, B, START).is_none(), "asked back");
    assert_eq!(leases.grant(FILE, Lease::ALL, A, START), Lease::ALL, "its own change");
    leases.release(B, &[(FILE, Lease::ATTRIBUTES)], START);
    assert!(change.is_clear() && asked(&leases, B).is_empty());
    drop(change);
    let late = START + HOLD;
    assert!(leases.grant(FILE, Lease::ATTRIBUTES, B, START).is_none(), "held for the change");
    assert_eq!(leases.grant(FILE, Lease::ATTRIBUTES, B, late), Lease::ATTRIBUTES);
}

#[test]
fn a_claim_keeps_others_from_being_granted_until_it_is_dropped() {
    let leases = leases();
    let change = claim(&leases, Lease::CONTENT, NOBODY, START);
    assert!(change.is_clear());
    assert_eq!(leases.grant(FILE, Lease::ALL, A, START), Lease::ALL.without(Lease::CONTENT));
    drop(change);
    assert_eq!(leases.grant(FILE, Lease::CONTENT, A, START), Lease::CONTENT);
}

#[test]
fn a_second_change_asks_for_more_under_a_new_number() {
    let leases = leases();
    leases.grant(FILE, Lease::ALL, B, START);
    drop(claim(&leases, Lease::ATTRIBUTES, A, START));
    let first = leases.revocations(B, 0).expect("alive")[0].number;
    drop(claim(&leases, Lease::ATTRIBUTES, A, START));
    assert!(leases.revocations(B, first).expect("alive").is_empty(), "asked already");
    drop(claim(&leases, Lease::NAMES, A, START));
    let again = leases.revocations(B, first).expect("alive");
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].lease, Lease::ATTRIBUTES.or(Lease::NAMES));
    leases.release(B, &[(FILE, Lease::ATTRIBUTES)], START);
    assert_eq!(asked(&leases, B), [Lease::NAMES], "the rest is still asked for");
}

#[test]
fn content_comes_back_soon_unless_the_holder_was_slow() {
    let check = |answered: Duration, after: Duration, expect: Lease| {
        let leases = leases();
        leases.grant(FILE, Lease::CONTENT, B, START);
        drop(claim(&leases, Lease::CONTENT, A, START));
        leases.release(B, &[(FILE, Lease::CONTENT)], answered);
        assert_eq!(leases.grant(FILE, Lease::CONTENT, B, answered + after), expect);
    };
    check(START, Duration::ZERO, Lease::CONTENT);
    check(START + WAIT_MAX, HOLD / 2, Lease::NONE);
    check(START + WAIT_MAX, HOLD, Lease::CONTENT);
}

#[test]
fn the_end_of_a_holder_clears_what_was_asked_of_it() {
    let leases = leases();
    leases.grant(FILE, Lease::ALL, B, START);
    let change = claim(&leases, Lease::ALL, A, START);
    leases.end(B, START);
    assert!(change.is_clear());
    assert!(leases.grant(FILE, Lease::ALL, B, START + HOLD).is_none(), "nobody");
    leases.open(B, 99, false);
    assert_eq!(leases.heard(B, 12), Some(99), "a new life of its leases");
}

#[test]
fn two_who_write_one_file_wait_for_each_others_caches() {
    let leases = leases();
    leases.grant(FILE, Lease::ALL, A, START);
    leases.grant(FILE, Lease::ALL, B, START);
    let first = claim(&leases, Lease::CONTENT, A, START);
    let second = claim(&leases, Lease::CONTENT, B, START);
    assert!(!first.is_clear() && !second.is_clear());
    leases.release(B, &[(FILE, Lease::CONTENT)], START);
    assert!(first.is_clear() && !second.is_clear());
    leases.release(A, &[(FILE, Lease::CONTENT)], START);
    assert!(second.is_clear());
}

#[test]
fn after_a_restart_changes_wait_for_every_known_holder() {
    let leases = Rc::new(Leases::default());
    leases.open(A, 1, true);
    leases.open(B, 2, true);
    let change = claim(&leases, Lease::ALL, NOBODY, START);
    assert!(!change.is_clear());
    leases.heard(A, 1);
    leases.heard(B, 77);
    assert!(!change.is_clear(), "B does not know yet that its leases are gone");
    assert!(claim(&leases, Lease::ALL, B, START).is_clear(), "and need not for its own changes");
    leases.end(B, START);
    assert!(change.is_clear());
}

#[test]
fn an_inode_that_is_gone_leaves_nothing_behind() {
    let leases = leases();
    leases.grant(FILE, Lease::ALL, A, START);
    drop(claim(&leases, Lease::ALL, B, START));
    leases.forget(FILE, START);
    let table = leases.table.borrow();
    assert!(table.granted.is_empty() && table.pending.is_empty() && table.claims.is_empty());
    drop(table);
    assert!(asked(&leases, A).is_empty());
}
