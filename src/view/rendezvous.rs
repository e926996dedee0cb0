//! Consistent hashing by highest random weight: each node has a score for each key, and the
//! highest one is the key's home (Thaler and Ravishankar, "Using name-based mappings to increase
//! hit rates", 1998).
//!
//! The scores of a node do not depend on the other nodes. So a node that leaves gives away only
//! its own keys, each to the runner-up, and a node that comes takes only those that it wins.
//!
//! The score is part of the protocol: nodes of different builds must agree on it. With XXH3 of 64
//! bits and [`SEED`], integers as 8 bytes with the lowest first:
//!
//! ```text
//! score(node, key) = xxh3(xxh3(key) ++ node id)
//! ```
//!
//! The identity that is hashed is the node's id alone: a node that restarts keeps its keys, while
//! the epoch tells its tenures apart. Two keys with the same hash share their home; that is
//! harmless. Cost: one hash of the key and one of 16 bytes for each node.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::{Epoch, NodeId};
use crate::view::cluster::View;

/// "mufakat\0" as a number. Changing it moves every key.
const SEED: u64 = u64::from_be_bytes(*b"mufakat\0");

/// Where keys live under one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    epoch: Epoch,
    nodes: Vec<NodeId>,
}

impl Placement {
    /// Under the view that will be once nothing is prepared any more, numbered by [`View::fence`]: for what is
    /// fenced elsewhere, so that nobody has to wait until leases on the view before are over.
    pub fn latest(view: &View) -> Self {
        Placement {
            epoch: view.fence(),
            nodes: view.latest().keys().copied().collect(),
        }
    }

    /// Where keys would live under these nodes.
    pub fn of(epoch: Epoch, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Placement {
            epoch,
            nodes: nodes.into_iter().collect(),
        }
    }

    /// What numbers the view that this placement was made from.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The node that is home to `key`; none in an empty view.
    pub fn home(&self, key: &[u8]) -> Option<NodeId> {
        let hash = key_hash(key);
        let nodes = self.nodes.iter().copied();
        nodes.max_by_key(|&node| (score(node, hash), node))
    }

    /// The home of `key` and the node that would be its home without it, if there is another.
    pub fn home_and_second(&self, key: &[u8]) -> Option<(NodeId, Option<NodeId>)> {
        let hash = key_hash(key);
        let mut best: Option<(u64, NodeId)> = None;
        let mut second: Option<(u64, NodeId)> = None;
        for &node in &self.nodes {
            let rank = Some((score(node, hash), node));
            if rank > best {
                second = best;
                best = rank;
            } else if rank > second {
                second = rank;
            }
        }
        best.map(|(_, home)| (home, second.map(|(_, node)| node)))
    }

    /// All nodes from the best to the worst for `key`: the home first, then the runner-up, which
    /// becomes the home when the first one leaves.
    pub fn ranked(&self, key: &[u8]) -> Vec<NodeId> {
        let hash = key_hash(key);
        let mut ranked = self.nodes.clone();
        ranked.sort_unstable_by_key(|&node| std::cmp::Reverse((score(node, hash), node)));
        ranked
    }
}

fn key_hash(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, SEED)
}

fn score(node: NodeId, key_hash: u64) -> u64 {
    let mut input = [0; 16];
    input[..8].copy_from_slice(&key_hash.to_le_bytes());
    input[8..].copy_from_slice(&node.0.to_le_bytes());
    xxh3_64_with_seed(&input, SEED)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn placement(nodes: impl IntoIterator<Item = u64>) -> Placement {
        Placement::of(Epoch(1), nodes.into_iter().map(NodeId))
    }

    /// These numbers were also computed with the reference implementation of XXH3. If one of them
    /// changes, nodes of two builds disagree about homes.
    #[test]
    fn scores_are_pinned() {
        assert_eq!(SEED, 0x6d75_6661_6b61_7400);
        let key_hashes: [(&str, u64); 3] = [
            ("", 0x7ead_c336_fcb9_682b),
            ("orders", 0xcade_5d96_d4f5_38bc),
            ("orders.42", 0xe5bd_50a3_acbb_0c7b),
        ];
        for (key, expected) in key_hashes {
            assert_eq!(key_hash(key.as_bytes()), expected, "hash of {key:?}");
        }
        let scores: [(u64, &str, u64); 3] = [
            (1, "orders", 0x8034_e0b5_0395_0099),
            (2, "orders", 0x62ad_c588_da43_1d76),
            (3, "orders", 0xabbf_1894_b681_ad51),
        ];
        for (node, key, expected) in scores {
            let score = score(NodeId(node), key_hash(key.as_bytes()));
            assert_eq!(score, expected, "score of node {node} for {key:?}");
        }
    }

    #[test]
    fn homes_are_pinned() {
        let placement = placement([1, 2, 3, 4, 5]);
        let expected: [(&str, [u64; 5]); 4] = [
            ("", [1, 2, 5, 3, 4]),
            ("orders", [4, 3, 1, 2, 5]),
            ("orders.42", [2, 1, 5, 4, 3]),
            ("überweisung", [4, 2, 3, 1, 5]),
        ];
        for (key, nodes) in expected {
            assert_eq!(
                placement.ranked(key.as_bytes()),
                nodes.map(NodeId),
                "{key:?}"
            );
        }
    }

    #[test]
    fn an_empty_view_is_home_to_nothing() {
        assert_eq!(placement([]).home(b"orders"), None);
        assert_eq!(placement([]).ranked(b"orders"), []);
    }

    #[test]
    fn keys_spread_evenly() {
        const KEYS: usize = 30_000;
        for nodes in [2, 3, 5, 7] {
            let placement = placement(1..=nodes);
            let mut shares: BTreeMap<NodeId, usize> = BTreeMap::new();
            for i in 0..KEYS {
                let home = placement.home(format!("key-{i}").as_bytes());
                *shares.entry(home.expect("nodes are there")).or_default() += 1;
            }
            let fair = KEYS as f64 / nodes as f64;
            assert_eq!(shares.len() as u64, nodes);
            for (node, share) in shares {
                // Four standard deviations of a binomial share are under 8% here.
                let off = (share as f64 - fair).abs() / fair;
                assert!(off < 0.08, "node {node} of {nodes} has {share} of {KEYS}");
            }
        }
    }

    fn some_nodes() -> impl Strategy<Value = BTreeSet<u64>> {
        prop::collection::btree_set(1..u64::from(u32::MAX), 1..8)
    }

    proptest! {
        #[test]
        fn a_node_that_leaves_moves_only_its_own_keys_each_to_the_runner_up(
            nodes in some_nodes(),
            leaver in any::<prop::sample::Index>(),
            keys in prop::collection::vec(".{0,20}", 50),
        ) {
            let leaver = *leaver.get(&nodes.iter().copied().collect::<Vec<_>>());
            let before = placement(nodes.iter().copied());
            let after = placement(nodes.iter().copied().filter(|&node| node != leaver));
            for key in keys {
                let key = key.as_bytes();
                let expected = match before.home(key) {
                    Some(home) if home == NodeId(leaver) => before.ranked(key).get(1).copied(),
                    home => home,
                };
                prop_assert_eq!(after.home(key), expected);
            }
        }

        #[test]
        fn a_node_that_comes_takes_keys_only_for_itself(
            nodes in some_nodes(),
            comer in 1..u64::from(u32::MAX),
            keys in prop::collection::vec(".{0,20}", 50),
        ) {
            let before = placement(nodes.iter().copied());
            let after = placement(nodes.iter().copied().chain([comer]));
            for key in keys {
                let home = after.home(key.as_bytes());
                prop_assert!(home == Some(NodeId(comer)) || home == before.home(key.as_bytes()));
            }
        }

        #[test]
        fn the_home_is_the_first_of_the_ranked_and_all_are_ranked(
            nodes in some_nodes(), key in ".{0,300}",
        ) {
            let placement = placement(nodes.iter().copied());
            let ranked = placement.ranked(key.as_bytes());
            prop_assert_eq!(ranked.first().copied(), placement.home(key.as_bytes()));
            let both = ranked.first().map(|home| (*home, ranked.get(1).copied()));
            prop_assert_eq!(both, placement.home_and_second(key.as_bytes()));
            let all: BTreeSet<u64> = ranked.iter().map(|node| node.0).collect();
            prop_assert_eq!(all, nodes);
        }
    }
}
