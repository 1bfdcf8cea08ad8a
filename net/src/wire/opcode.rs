//! What a request asks for, and the flags that go with it. Numbers are append-only.

/// The operation of a request; one byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Handshake; the first request of a connection.
    Hello = 1,
    /// Read one record.
    Get = 2,
    /// Write one record.
    Put = 3,
    /// Delete one record.
    Delete = 4,
    /// Several writes of one partition, all or none.
    Batch = 5,
    /// One page of a partition's records in key order.
    Scan = 6,
    /// The first record of a partition.
    Min = 7,
    /// The last record of a partition.
    Max = 8,
    /// How many records a range of a partition holds.
    Count = 9,
    /// Make a table.
    CreateTable = 10,
    /// Forget a table and its records.
    DropTable = 11,
    /// The tables of the node.
    ListTables = 12,
    /// The partition map.
    Map = 13,
    /// Counters and gauges of the node.
    Stats = 14,
    /// Nothing; the body comes back.
    Ping = 15,
    /// Write a checkpoint on every shard.
    Checkpoint = 16,
    /// Add to a number.
    Increment = 17,
    /// Set anew when a record expires.
    Expire = 18,
    /// How long a record has still to live.
    TimeToLive = 19,
    /// The tables whose records expire by default.
    TableTtls = 20,
    /// Begin to read every record of the drive, on every shard.
    Scrub = 21,
    /// Begin a transaction on a partition.
    Begin = 22,
    /// Write all of a transaction, if nothing that it has read was changed.
    Commit = 23,
    /// End a transaction without writing.
    Rollback = 24,
    /// Get, as a transaction sees it.
    TransactionGet = 25,
    /// Scan, as a transaction sees it.
    TransactionScan = 26,
    /// Count, as a transaction sees it.
    TransactionCount = 27,
    /// Make a table with a quota.
    CreateTableQuota = 28,
    /// Set the quota of a table or of a partition.
    SetQuota = 29,
    /// The quotas that were set.
    Quotas = 30,
    /// Say by a secret for whom the connection acts.
    Authenticate = 31,
}

impl Opcode {
    /// Every opcode, in order of its number.
    pub const ALL: [Opcode; 31] = [
        Opcode::Hello,
        Opcode::Get,
        Opcode::Put,
        Opcode::Delete,
        Opcode::Batch,
        Opcode::Scan,
        Opcode::Min,
        Opcode::Max,
        Opcode::Count,
        Opcode::CreateTable,
        Opcode::DropTable,
        Opcode::ListTables,
        Opcode::Map,
        Opcode::Stats,
        Opcode::Ping,
        Opcode::Checkpoint,
        Opcode::Increment,
        Opcode::Expire,
        Opcode::TimeToLive,
        Opcode::TableTtls,
        Opcode::Scrub,
        Opcode::Begin,
        Opcode::Commit,
        Opcode::Rollback,
        Opcode::TransactionGet,
        Opcode::TransactionScan,
        Opcode::TransactionCount,
        Opcode::CreateTableQuota,
        Opcode::SetQuota,
        Opcode::Quotas,
        Opcode::Authenticate,
    ];

    /// The opcode of a header's byte.
    pub fn from_u8(byte: u8) -> Option<Opcode> {
        Opcode::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// Flags that a request of this opcode may carry.
    pub fn allowed_flags(self) -> u8 {
        match self {
            Opcode::Put => flags::IF_ABSENT | flags::IF_SEQ | flags::TTL | flags::NO_TTL,
            Opcode::Expire => flags::TTL | flags::NO_TTL,
            Opcode::CreateTable => flags::TTL,
            Opcode::Delete => flags::IF_SEQ,
            Opcode::Scan | Opcode::TransactionScan => {
                flags::REVERSE | flags::KEYS_ONLY | flags::HAS_END | flags::TTL
            }
            Opcode::Count | Opcode::TransactionCount => flags::HAS_END,
            Opcode::Begin => flags::READ_ONLY,
            _ => 0,
        }
    }

    /// Whether a request of this opcode names a partition.
    pub fn is_for_partition(self) -> bool {
        (Opcode::Get as u8..=Opcode::Count as u8).contains(&(self as u8))
            || matches!(self, Opcode::Increment | Opcode::Expire | Opcode::TimeToLive)
            || (Opcode::Begin as u8..=Opcode::TransactionCount as u8).contains(&(self as u8))
    }
}

/// Flags of a request: bits of one byte of its header.
pub mod flags {
    /// Put: only if there is no such record.
    pub const IF_ABSENT: u8 = 0x01;
    /// Put, Delete: only if the record has the version that the body gives.
    pub const IF_SEQ: u8 = 0x02;
    /// Scan: descending order, from the range's end.
    pub const REVERSE: u8 = 0x04;
    /// Scan: leave out values and versions.
    pub const KEYS_ONLY: u8 = 0x08;
    /// Scan, Count: the range has an end; without it the range is open.
    pub const HAS_END: u8 = 0x10;
    /// Put, Expire, CreateTable: the body has a time to live. Scan: the reply shall have them.
    pub const TTL: u8 = 0x20;
    /// Put, Expire: the record never expires, whatever its table says.
    pub const NO_TTL: u8 = 0x40;
    /// Begin: the transaction will write nothing.
    pub const READ_ONLY: u8 = 0x80;
}

/// Flags of a reply: bits of one byte of its header.
pub mod reply_flags {
    /// Scan: the range holds more than this page.
    pub const MORE: u8 = 0x01;
    /// StaleMap, Map: the body is a partition map.
    pub const MAP: u8 = 0x02;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_come_back_from_their_bytes() {
        for byte in 0..=u8::MAX {
            if let Some(opcode) = Opcode::from_u8(byte) {
                assert_eq!(opcode as u8, byte);
            }
        }
        assert_eq!((0..=u8::MAX).filter_map(Opcode::from_u8).count(), Opcode::ALL.len());
        assert!(Opcode::Get.is_for_partition() && Opcode::Count.is_for_partition());
        assert!(!Opcode::Hello.is_for_partition() && !Opcode::CreateTable.is_for_partition());
    }
}
