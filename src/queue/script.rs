//! The scripts, what goes into them and what comes out: one Lua file and one function for each
//! transition. Plain code.
//!
//! Transitions of the hot path (`ack`, `nack`, `extend`, `push`, `pop`) are sections of one script,
//! so that all that waits for a topic is one call; [`Batch`] writes them.
//!
//! The scripts of the cache's store are here, too: there is one way to load and run a script.

use bytes::Bytes;

mod batch;
mod stored;

pub use batch::{Batch, BatchReply, NewMessage, PoppedMessage};
pub use stored::Stored;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $directory:literal $($file:literal)+;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Script {
            $($(#[$doc])* $name,)*
        }

        impl Script {
            pub const ALL: &[Script] = &[$(Script::$name,)*];

            pub fn source(self) -> &'static str {
                match self {
                    $(Script::$name => concat!(
                        include_str!(concat!($directory, "/prelude.lua")),
                        $(include_str!(concat!($directory, "/", $file, ".lua")),)+
                    ),)*
                }
            }
        }
    };
}

scripts! {
    /// All that waits for a topic.
    Batch: "scripts" "ack" "take_out" "nack" "extend" "push" "pop" "reply";
    Configure: "scripts" "configure";
    Cancel: "scripts" "cancel";
    Pause: "scripts" "pause";
    Redrive: "scripts" "redrive";
    Purge: "scripts" "purge";
    Inspect: "scripts" "inspect";
    /// Keeps what a write of a cached key leaves.
    CacheKeep: "../cache/scripts" "keep";
    /// Says what is kept of a cached key.
    CacheBring: "../cache/scripts" "bring";
    /// Lets cached values that match count no more.
    CacheVoid: "../cache/scripts" "void";
}

impl Script {
    /// Whether a Redis without memory is to execute it: what makes room must go on, or memory would stay full for
    /// ever. Of a batch only a part does, which is for its caller to choose.
    pub fn makes_room(self) -> bool {
        matches!(self, Script::Batch | Script::Cancel | Script::Purge)
    }
}

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Integer(i64),
    Bytes(Bytes),
    List(Vec<Reply>),
    Nothing,
}

/// Who calls, and what it knows of the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub epoch: u64,
    /// The highest operation sequence that was acknowledged; a lower one in Redis is a loss.
    pub opseq: u64,
    /// Sequence numbers begin above this, after a loss.
    pub seq_floor: u64,
    /// Losses that had been told; no script hears of it.
    pub losses: u64,
    /// Redis has no memory: only what makes room.
    pub spare: bool,
    /// The bytes of the topic's messages are counted.
    pub counts_bytes: bool,
}

impl Caller {
    /// Who only reads: neither fenced nor heard of.
    pub const READER: Caller = Caller {
        epoch: crate::protocol::INTEGER_MAX,
        opseq: 0,
        seq_floor: 0,
        losses: 0,
        spare: false,
        counts_bytes: false,
    };

    /// The first arguments of every script.
    pub fn args(self) -> Args {
        let mut args = Args::default();
        args.number(self.epoch);
        args.number(self.opseq);
        args.number(self.seq_floor);
        args.number(u64::from(self.spare));
        args.number(u64::from(self.counts_bytes));
        args
    }

    /// All arguments of a script that takes these of its own.
    pub fn with(self, own: Args) -> Args {
        let mut args = self.args();
        args.0.extend(own.0);
        args
    }
}

/// Arguments of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(pub Vec<Bytes>);

impl Args {
    pub fn number(&mut self, number: u64) {
        self.0.push(number.to_string().into());
    }

    pub fn text(&mut self, text: &str) {
        self.0.push(Bytes::copy_from_slice(text.as_bytes()));
    }

    pub fn bytes(&mut self, bytes: Bytes) {
        self.0.push(bytes);
    }
}

/// Why a call changed nothing although Redis executed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A node with a newer view owns the topic.
    Fenced { epoch: u64 },
    /// The topic's past is shorter than what was acknowledged.
    Lost { opseq: u64, seq: u64 },
}

/// What a script says after it did its work.
#[derive(Clone, Debug)]
pub struct Done {
    pub opseq: u64,
    pub seq: u64,
    /// Of the messages that the topic keeps, where they are counted.
    pub bytes: u64,
    pub rest: std::vec::IntoIter<Reply>,
}

impl Done {
    pub fn number(&mut self) -> Option<u64> {
        self.rest.next()?.number()
    }

    pub fn list(&mut self) -> Option<Vec<Reply>> {
        match self.rest.next()? {
            Reply::List(list) => Some(list),
            _ => None,
        }
    }
}

impl Reply {
    /// Splits off what all scripts begin their answers with; none if it is not such an answer.
    pub fn outcome(self) -> Option<Result<Done, Denied>> {
        let Reply::List(list) = self else {
            return None;
        };
        let mut parts = list.into_iter();
        let kind = parts.next()?.text()?;
        Some(match kind.as_str() {
            "ok" => Ok(Done {
                opseq: parts.next()?.number()?,
                seq: parts.next()?.number()?,
                bytes: parts.next()?.number()?,
                rest: parts,
            }),
            "fenced" => Err(Denied::Fenced {
                epoch: parts.next()?.number()?,
            }),
            "lost" => Err(Denied::Lost {
                opseq: parts.next()?.number()?,
                seq: parts.next()?.number()?,
            }),
            _ => return None,
        })
    }

    /// A number, or text that is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Reply::Integer(integer) => u64::try_from(*integer).ok(),
            Reply::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Reply::Integer(integer) => Some(integer.to_string()),
            _ => None,
        }
    }

    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}
