//! How a request ended. Numbers are append-only: they outlive this build in other people's clients.

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// How a request ended; two bytes of its reply's header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Status {
            $($(#[$doc])* $name = $number,)*
        }

        impl Status {
            /// Every status, in order of its number.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];

            /// The status in words, for people; the reply's own message may say more.
            pub fn text(self) -> &'static str {
                match self {
                    $(Status::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0, "done";
    /// There is no such record.
    NotFound = 1, "there is no such record";
    /// The condition of a write does not hold. `seq` is the present version where `aux` is 1; `aux` 0: no record.
    ConditionFailed = 2, "the condition of the write does not hold";
    /// The partition is not here, has another epoch (`aux`), or does not hold the key. The body may carry the map.
    StaleMap = 3, "the partition map has changed; fetch it again";
    /// Too much is queued; nothing was done.
    Busy = 4, "the node is busy; try again in a moment";
    /// The drive is full of live records (`aux`: their bytes). Nothing was written.
    Full = 5, "the drive is full; delete or drop something, or add a drive";
    /// Index and memory tables use all the memory they may (`aux`: bytes). Nothing was written.
    MemoryFull = 6, "the node's memory is full; delete or drop something, or raise --memory";
    /// The record is damaged on the drive (`aux`: drive offset).
    Corrupt = 7, "the record is damaged on the drive; restore it from a copy";
    /// The drive failed a read (`aux`: os error).
    DeviceError = 8, "the drive failed a read";
    /// The drive failed a write; the shard's log is closed, and whether this write survives is not known.
    Poisoned = 9, "the drive failed a write: the shard takes no writes until the node restarts";
    /// The key is empty or too long (`aux`: its length).
    KeyLength = 10, "a key has 1 to 4096 bytes";
    /// The value is too long (`aux`: its length).
    ValueLength = 11, "the value is longer than the node takes";
    /// The batch is empty, or has too many writes or bytes (`aux`: writes).
    BatchSize = 12, "the batch is empty, or has more writes or bytes than the node takes";
    /// The scan's limit or byte budget is out of range.
    ScanLimits = 13, "a scan's limit is 1 to 4096 records and its budget 1 byte to 4 MiB";
    /// There is no such table.
    UnknownTable = 14, "there is no such table";
    /// The table exists already.
    TableExists = 15, "the table exists already";
    /// The table's name is empty or too long (`aux`: its length).
    NameLength = 16, "a table's name has 1 to 128 bytes";
    /// A partition's range is empty, out of order, or has a bound over 4096 bytes.
    BadRange = 17, "the table's splits are empty, out of order or too long";
    /// The node holds as many partitions as it may (`aux`: the most).
    TooManyPartitions = 18, "the node would have more partitions than it takes";
    /// The body is not what its opcode asks for.
    Malformed = 19, "the request's body is malformed";
    /// There is no such opcode (`aux`: its number).
    UnknownOpcode = 20, "the node does not know this operation; it may be older than the client";
    /// Client and node share no protocol version (`aux`: the node's oldest, and its newest << 16).
    VersionUnsupported = 21, "client and node share no protocol version; update the older one";
    /// The node is still recovering its drive.
    NotReady = 22, "the node recovers its drive, or has no memory for the answer; try again in a moment";
    /// The node has as many connections as it takes; it closes this one.
    TooManyConnections = 23, "the node has as many connections as it takes";
    /// The node is stopping; nothing was done.
    ShuttingDown = 24, "the node is stopping";
    /// The node holds as many tables as it may (`aux`: the most).
    TooManyTables = 25, "the node has as many tables as it takes";
    /// There is no room for a checkpoint.
    NoSpace = 26, "there is no room for a checkpoint";
    /// Violation: the header's length is beyond the limit (`aux`: the length). The connection closes.
    FrameTooLarge = 27, "the request is longer than the node takes";
    /// Violation: the checksum is wrong. The connection closes.
    BadChecksum = 28, "the request's checksum is wrong";
    /// Violation: the first request was not a well-formed Hello. The connection closes.
    HelloFirst = 29, "the first request of a connection must be a Hello";
    /// Violation: no Hello, or half a request, for too long. The connection closes.
    Timeout = 30, "the connection was silent in the middle of a request for too long";
    /// An increment of a value that is no decimal number of 64 bits. Nothing was written.
    NotANumber = 31, "the present value is no decimal number of 64 bits";
    /// An increment beyond 64 bits (`aux`: the present number, signed). Nothing was written.
    NumberOverflow = 32, "the number would not fit 64 bits";
    /// The partition is quarantined: writes up to a version (`seq`) may be lost to damage, and the answer would need them.
    Quarantined = 33, "the partition is quarantined after damage; copy what is left to another table, or restore it";
    /// A time to live of 0 or over a hundred years (`aux`: its milliseconds). Nothing was written.
    BadTtl = 34, "records live from 1ms to 100y (36500d)";
    /// Something that the transaction has read was changed since it began; the body is the first key found. It has ended.
    Conflict = 35, "something that the transaction has read was changed since it began; begin it again";
    /// There is no such transaction, or no more.
    TransactionEnded = 36, "the transaction has ended: it was committed or rolled back, lived too long, held too much, or its table or connection is gone; begin it again";
    /// The transaction has read as much as the node remembers of one.
    ReadSetFull = 37, "the transaction has read all that it may; roll it back, read less, or begin one that only reads";
    /// The partition or its shard has as many open transactions as it takes.
    TooManyTransactions = 38, "as many transactions are open as the node takes; end some, or try again later";
    /// The transaction would live too long (`aux`: the milliseconds asked for).
    TransactionLifetime = 39, "a transaction lives at most 60 s";
    /// A transaction that only reads was asked to write. Nothing was written.
    ReadOnly = 40, "the transaction was begun to read only";
    /// The table is dropped, but a shard (`aux`) still holds space of it.
    DropUnfinished = 41, "the table is dropped, but a shard could not free its space; the node tries again";
    /// The partition is above its quota (`aux`: microseconds until the same may pass). Nothing was done.
    Throttled = 42, "the partition is above its quota; wait, or raise the quota";
    /// A number of a quota is out of range.
    BadQuota = 43, "a quota has a weight of 1 to 10000, a burst of 1ms to 5m, and rates of at most 2^40 a second";
    /// The connection has shown no token that the node knows, and the node wants one. At the handshake the connection closes.
    Unauthenticated = 44, "the node wants a token, and this one is missing, unknown or withdrawn; give one with --token-file";
    /// The token has not the right that this takes. Nothing was done.
    Forbidden = 45, "the token has not the right that this takes";
    /// What was asked for is written, but a record that cannot be read (`aux`: its byte of the drive) may be one of a key that it deletes.
    MayReturn = 46, "what was asked for is written, but a damaged record may be one of a key that was deleted: should the drive read it again, it is there again; put the key, or drop the table";
}

impl Status {
    /// The status of a header's number.
    pub fn from_u16(number: u16) -> Option<Status> {
        Status::ALL.get(usize::from(number)).copied()
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_come_back_from_their_numbers() {
        for (place, status) in Status::ALL.iter().enumerate() {
            assert_eq!(*status as usize, place);
            assert_eq!(Status::from_u16(place as u16), Some(*status));
        }
        assert_eq!(Status::from_u16(Status::ALL.len() as u16), None);
    }
}
