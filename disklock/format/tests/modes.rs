//! The lattice of the six modes (DESIGN section 7).

use mxlock_format::Mode;

/// The compatibility table of the VMS lock manager, as published: rows hold, columns ask, in the order of `ALL`.
const PUBLISHED: [&str; 6] = [
    //   NL CR CW PR PW EX
    /* NL */ "y y y y y y",
    /* CR */ "y y y y y n",
    /* CW */ "y y y n n n",
    /* PR */ "y y n y n n",
    /* PW */ "y y n n n n",
    /* EX */ "y n n n n n",
];

#[test]
fn compatibility_is_the_published_table() {
    for (held, row) in Mode::ALL.into_iter().zip(PUBLISHED) {
        for (asked, cell) in Mode::ALL.into_iter().zip(row.split(' ')) {
            assert_eq!(held.compatible(asked), cell == "y", "{held} held, {asked} asked");
        }
    }
}

#[test]
fn compatibility_is_symmetric() {
    for a in Mode::ALL {
        for b in Mode::ALL {
            assert_eq!(a.compatible(b), b.compatible(a), "{a} {b}");
        }
    }
}

/// A mode covers another exactly when it shuts out at least as much. So the order follows from the table, and
/// nothing that is compatible with a lock becomes incompatible with it by a down-conversion.
#[test]
fn covers_follows_from_compatibility() {
    for a in Mode::ALL {
        for b in Mode::ALL {
            let shuts_out_more = Mode::ALL.into_iter().all(|other| b.compatible(other) || !a.compatible(other));
            assert_eq!(a.covers(b), shuts_out_more, "{a} covers {b}");
        }
    }
}

#[test]
fn covers_is_a_partial_order() {
    for a in Mode::ALL {
        assert!(a.covers(a) && a.covers(Mode::NL) && Mode::EX.covers(a));
        for b in Mode::ALL {
            assert!(a == b || !(a.covers(b) && b.covers(a)), "{a} and {b} cover each other");
            for c in Mode::ALL {
                assert!(!(a.covers(b) && b.covers(c)) || a.covers(c), "{a} {b} {c}");
            }
        }
    }
}

/// PROTOTYPE 11: PR and CW are incomparable, and the only pair that is. Converting one to the other is never a
/// down-conversion.
#[test]
fn only_pr_and_cw_are_incomparable() {
    let mut incomparable = Vec::new();
    for a in Mode::ALL {
        for b in Mode::ALL {
            if !a.covers(b) && !b.covers(a) {
                incomparable.push((a, b));
            }
        }
    }
    assert_eq!(incomparable, [(Mode::CW, Mode::PR), (Mode::PR, Mode::CW)]);
}

#[test]
fn numbers_and_names_are_those_on_disk() {
    for (number, (mode, name)) in Mode::ALL.into_iter().zip(["NL", "CR", "CW", "PR", "PW", "EX"]).enumerate() {
        assert_eq!(mode as usize, number);
        assert_eq!(Mode::from_number(number as u8), Some(mode));
        assert_eq!(mode.to_string(), name);
        assert_eq!(name.to_lowercase().parse(), Ok(mode));
    }
    for number in 6..=u8::MAX {
        assert_eq!(Mode::from_number(number), None, "mode {number}");
    }
    assert!("XX".parse::<Mode>().unwrap_err().contains("use one of NL, CR, CW, PR, PW, EX"));
}
