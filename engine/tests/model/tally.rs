//! What the runs of the model did: a run that does little shows little.

/// What a run did.
#[derive(Default, Debug)]
pub struct Tally {
    pub values: u64,
    pub full: u64,
    pub cleaned: u64,
    pub checkpoints: u64,
    pub crashes: u64,
    pub poisoned: u64,
    pub churned: u64,
    pub increments: u64,
    pub expired: u64,
    pub expiry_changes: u64,
    pub scrubbed: u64,
    pub commits: u64,
    pub conflicts: u64,
    pub transactions_ended: u64,
    /// Partitions that were not loaded when requests went on after a start.
    pub unloaded: u64,
}

impl Tally {
    /// Counts another run's with it.
    pub fn add(&mut self, other: &Tally) {
        self.values += other.values;
        self.full += other.full;
        self.cleaned += other.cleaned;
        self.checkpoints += other.checkpoints;
        self.crashes += other.crashes;
        self.poisoned += other.poisoned;
        self.churned += other.churned;
        self.increments += other.increments;
        self.expired += other.expired;
        self.expiry_changes += other.expiry_changes;
        self.scrubbed += other.scrubbed;
        self.commits += other.commits;
        self.conflicts += other.conflicts;
        self.transactions_ended += other.transactions_ended;
        self.unloaded += other.unloaded;
    }
}
