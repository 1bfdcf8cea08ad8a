//! What may be done with a table, and what each operation takes.

use lode_net::wire::Opcode;

/// Rights to one table: bits of a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// None, not even that the token is known.
    pub const NONE: Rights = Rights(0);
    /// The token is known.
    pub const KNOWN: Rights = Rights(0x01);
    /// Reading records.
    pub const READ: Rights = Rights(0x02);
    /// Writing records.
    pub const WRITE: Rights = Rights(0x04);
    /// Making and dropping the table, and setting its quotas.
    pub const ADMIN: Rights = Rights(0x08);

    /// Both.
    pub const fn and(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// These, and the other ones where that is so.
    pub fn and_if(self, other: Rights, so: bool) -> Rights {
        if so { self.and(other) } else { self }
    }

    /// Whether all of these are among them.
    pub fn have(self, needed: Rights) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Whether any of these is among them.
    pub fn have_any(self, of: Rights) -> bool {
        self.0 & of.0 != 0
    }
}

/// What an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of these.
    All(Rights),
    /// One of these.
    Any(Rights),
}

impl Need {
    /// Whether these rights will do.
    pub fn is_met_by(self, rights: Rights) -> bool {
        match self {
            Need::All(needed) => rights.have(needed),
            Need::Any(of) => rights.have_any(of),
        }
    }
}

/// What an operation on a partition takes. What tells nothing of what was written takes the right to write alone; a
/// condition on a version tells that version.
pub fn need_of(opcode: Opcode) -> Need {
    const BOTH: Rights = Rights::READ.and(Rights::WRITE);
    match opcode {
        Opcode::Put | Opcode::Delete | Opcode::Expire | Opcode::Batch | Opcode::Commit => {
            Need::All(Rights::WRITE)
        }
        // It answers the sum.
        Opcode::Increment => Need::All(BOTH),
        // What is done within is asked for by itself.
        Opcode::Begin | Opcode::Rollback => Need::Any(BOTH),
        _ => Need::All(Rights::READ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_are_apart() {
        let (read, write) = (Rights::KNOWN.and(Rights::READ), Rights::KNOWN.and(Rights::WRITE));
        for opcode in Opcode::ALL.into_iter().filter(|opcode| opcode.is_for_partition()) {
            let need = need_of(opcode);
            assert!(!need.is_met_by(Rights::KNOWN) && !need.is_met_by(Rights::NONE), "{opcode:?}");
            assert!(!need.is_met_by(Rights::KNOWN.and(Rights::ADMIN)), "{opcode:?}");
            assert!(need.is_met_by(read.and(write)), "{opcode:?}");
            let (reads, writes) = (need.is_met_by(read), need.is_met_by(write));
            match opcode {
                Opcode::Begin | Opcode::Rollback => assert!(reads && writes),
                Opcode::Increment => assert!(!reads && !writes),
                Opcode::Put | Opcode::Delete | Opcode::Expire | Opcode::Batch | Opcode::Commit => {
                    assert!(writes && !reads, "{opcode:?}");
                }
                _ => assert!(reads && !writes, "{opcode:?}"),
            }
        }
    }
}
