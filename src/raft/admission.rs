//! Which streams a receiver still listens to. Plain code.
//!
//! Of each sender one boot is current, and of that boot one number: of a stream, a transfer or a
//! heartbeat, whichever the lane counts. A greater number replaces it. Boot ids are random and have
//! no order, so that a boot is taken for newer when it is new here; the one it replaced is refused
//! for as long as a broker may still deliver what it left behind. Raft itself stays safe whatever
//! arrives: what is refused here would only cost time, or make an old leader look alive.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::frame::Header;
use crate::ids::{BootId, NodeId};
use crate::time::Instant;

/// Senders remembered: a cluster has fewer nodes. Frames of further ones are refused.
pub(super) const SENDERS_MAX: usize = 64;

/// How long a replaced boot is refused. A broker's client delivers up to 20 s late after a
/// reconnect; should two boots ever be mistaken for each other, the right one is back after this.
const REPLACED_BOOT_REFUSED: Duration = Duration::from_secs(30);

/// Replaced boots remembered per sender: one that restarts more often loses the oldest.
const REPLACED_BOOTS_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Senders {
    by_node: BTreeMap<NodeId, Sender>,
}

struct Sender {
    boot: BootId,
    number: u64,
    replaced: VecDeque<(BootId, Instant)>,
}

/// Where a frame stands against what its sender sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The first of a newer stream: from now on it is the current one.
    Newer,
    /// Of the current stream.
    Current,
    /// Of a stream or a boot that was replaced, or from one sender too many.
    Outdated,
    /// Of a stream whose beginning was not seen.
    Unopened,
}

impl Senders {
    /// Places `number` of a frame with this header; `opens` says that the frame may begin a stream.
    pub fn place(&mut self, header: &Header, number: u64, opens: bool, now: Instant) -> Standing {
        let Header {
            from, from_boot, ..
        } = *header;
        let known = self.by_node.len();
        let Some(sender) = self.by_node.get_mut(&from) else {
            return match (opens, known < SENDERS_MAX) {
                (false, _) => Standing::Unopened,
                (true, false) => Standing::Outdated,
                (true, true) => {
                    let replaced = VecDeque::new();
                    self.by_node.insert(
                        from,
                        Sender {
                            boot: from_boot,
                            number,
                            replaced,
                        },
                    );
                    Standing::Newer
                }
            };
        };
        if sender.boot == from_boot {
            return match (number.cmp(&sender.number), opens) {
                (std::cmp::Ordering::Less, _) => Standing::Outdated,
                (std::cmp::Ordering::Equal, _) => Standing::Current,
                (std::cmp::Ordering::Greater, false) => Standing::Unopened,
                (std::cmp::Ordering::Greater, true) => {
                    sender.number = number;
                    Standing::Newer
                }
            };
        }
        sender
            .replaced
            .retain(|(_, at)| now < *at + REPLACED_BOOT_REFUSED);
        if sender.replaced.iter().any(|(boot, _)| *boot == from_boot) {
            return Standing::Outdated;
        }
        if !opens {
            return Standing::Unopened;
        }
        if sender.replaced.len() == REPLACED_BOOTS_MAX {
            sender.replaced.pop_front();
        }
        sender.replaced.push_back((sender.boot, now));
        (sender.boot, sender.number) = (from_boot, number);
        Standing::Newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DiskId;
    use crate::raft::frame::Lane;
    use crate::raft::network::Identity;

    fn from(node: u64, boot: u64) -> Header {
        let identity = Identity {
            node: NodeId(node),
            disk: DiskId(node),
            boot: BootId(boot),
        };
        Header::new(Lane::Append, &identity, None)
    }

    #[test]
    fn a_greater_number_replaces_a_lesser_which_is_refused() {
        let (mut senders, now) = (Senders::default(), crate::time::now());
        let mut place = |number, opens| senders.place(&from(1, 1), number, opens, now);
        assert_eq!(place(5, false), Standing::Unopened);
        assert_eq!(place(5, true), Standing::Newer);
        assert_eq!(place(5, false), Standing::Current);
        assert_eq!(place(7, false), Standing::Unopened);
        assert_eq!(place(7, true), Standing::Newer);
        assert_eq!(place(5, true), Standing::Outdated);
    }

    #[test]
    fn a_replaced_boot_is_refused_for_a_while_and_not_for_ever() {
        let (mut senders, now) = (Senders::default(), crate::time::now());
        assert_eq!(senders.place(&from(1, 1), 50, true, now), Standing::Newer);
        assert_eq!(
            senders.place(&from(1, 2), 1, false, now),
            Standing::Unopened
        );
        assert_eq!(senders.place(&from(1, 2), 1, true, now), Standing::Newer);
        assert_eq!(
            senders.place(&from(1, 1), 51, true, now),
            Standing::Outdated
        );
        let later = now + REPLACED_BOOT_REFUSED;
        assert_eq!(senders.place(&from(1, 1), 51, true, later), Standing::Newer);
    }

    #[test]
    fn senders_and_boots_are_bounded() {
        let (mut senders, now) = (Senders::default(), crate::time::now());
        for node in 0..SENDERS_MAX as u64 {
            assert_eq!(senders.place(&from(node, 1), 1, true, now), Standing::Newer);
        }
        assert_eq!(
            senders.place(&from(1000, 1), 1, true, now),
            Standing::Outdated
        );
        for boot in 2..100 {
            assert_eq!(senders.place(&from(0, boot), 1, true, now), Standing::Newer);
        }
        assert!(senders.by_node[&NodeId(0)].replaced.len() <= REPLACED_BOOTS_MAX);
    }
}
