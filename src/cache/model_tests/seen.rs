//! What was seen on the way of the world's clients.

/// What was seen on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub operations: u64,
    pub local: u64,
    pub promoted: u64,
    pub evictions: u64,
    /// Copies that followed a write.
    pub updates: u64,
    /// Values that invalidations removed.
    pub swept: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub unknown: u64,
    /// Writes that were asked for again, and those whose repeat got an answer.
    pub repeated: u64,
    pub recalled: u64,
    pub counted: u64,
    pub epochs: u64,
    /// Calls that the store answered, and reads of what it had.
    pub called: u64,
    pub stored: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.operations += other.operations;
        self.local += other.local;
        self.promoted += other.promoted;
        self.evictions += other.evictions;
        self.updates += other.updates;
        self.swept += other.swept;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
        self.recalled += other.recalled;
        self.counted += other.counted;
        self.epochs += other.epochs;
        self.called += other.called;
        self.stored += other.stored;
    }
}
