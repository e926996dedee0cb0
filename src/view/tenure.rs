//! What one node may do under the view that it read, and until when. Plain code.
//!
//! ```text
//!             Begin: member of an active view, under an incarnation not spent
//!   nothing ------------------------------------------------------------------> acting
//!      ^                                                                        |    |
//!      +------------------------------------------------------------------------+    |
//!        Discard: left out, or a view was skipped; the incarnation is spent          |
//!                                                              Freeze, Thaw, Adopt <-+
//! ```
//!
//! A node that acts may serve from memory and decide as a home only while its lease lasts. The lease
//! begins when the read of the view was sent, not when its answer came: what the read saw was true
//! then or later. While another view is prepared, everything that would move rests ([`Acting::moves`]).
//!
//! A node that missed a whole view may have missed its own removal and return, so that what it keeps
//! counts for nothing, nor does what others believe about it: it acts again under a new incarnation only.
//!
//! Times are milliseconds of a clock that counts suspension; clocks of nodes are never compared.

use crate::ids::{BootId, Epoch, Incarnation, NodeId};
use crate::view::cluster::{Command, Member, Preparation, View};
use crate::view::rendezvous::Placement;

/// How far the rate of any clock may be off, in percent.
pub const DRIFT_PERCENT: u64 = 1;
/// Added to every wait for somebody else's lease: times are cut to milliseconds.
const MARGIN_MS: u64 = 20;
/// How much longer a follower waits than the leader before it says that leases are over, so that
/// as a rule one node says it.
const FOLLOWER_WAITS_MS: u64 = 500;

/// One member of a view: a node, and which of its stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stay {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// The members of one view and where keys live among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// By node id.
    stays: Vec<Stay>,
    placement: Placement,
}

/// Who keeps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Homes {
    /// Orders the key's writes.
    pub home: Stay,
    /// Becomes the home when that one leaves.
    pub second: Option<Stay>,
}

impl Roster {
    pub fn new(epoch: Epoch, members: impl Iterator<Item = (NodeId, Member)>) -> Self {
        let stays: Vec<Stay> = members
            .map(|(node, member)| Stay {
                node,
                incarnation: member.incarnation,
            })
            .collect();
        let placement = Placement::of(epoch, stays.iter().map(|stay| stay.node));
        Roster { stays, placement }
    }

    pub fn stays(&self) -> &[Stay] {
        &self.stays
    }

    /// The place of a node among the members, below [`MEMBERS_MAX`](crate::view::cluster::MEMBERS_MAX).
    pub fn place(&self, node: NodeId) -> Option<usize> {
        self.stays
            .binary_search_by_key(&node, |stay| stay.node)
            .ok()
    }

    pub fn stay(&self, node: NodeId) -> Option<Stay> {
        self.place(node).map(|place| self.stays[place])
    }

    pub fn homes(&self, key: &str) -> Option<Homes> {
        let (home, second) = self.placement.home_and_second(key.as_bytes())?;
        Some(Homes {
            home: self.stay(home)?,
            second: second.and_then(|node| self.stay(node)),
        })
    }

    pub fn home(&self, key: &str) -> Option<Stay> {
        self.stay(self.placement.home(key.as_bytes())?)
    }
}

/// What this node acts on.
#[derive(Clone, Debug)]
pub struct Acting {
    pub epoch: Epoch,
    pub stay: Stay,
    pub roster: Roster,
    lease_ms: u64,
    lease_until_ms: u64,
    next: Option<(Preparation, Roster)>,
}

/// What a look at the view asks of the cache, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forget everything: it counts for nothing any more.
    Discard,
    /// Begin with nothing.
    Begin,
    /// Another view than before is prepared, or none any more: what moves has changed.
    Freeze,
    /// The prepared view is the active one now; this is the roster before.
    Adopt(Roster),
    /// The lease lasts longer than before.
    Extend,
}

/// One node's knowledge of the view and its rights under it.
#[derive(Clone, Debug)]
pub struct Tenure {
    me: NodeId,
    boot: BootId,
    /// How long this node will act on what it reads; it says so when it joins.
    lease_ms: u64,
    revision: u64,
    /// The preparation under way, and the one that became the active view.
    prepared: Option<Preparation>,
    activated: Preparation,
    /// When the latest linearizable read of the view was sent that came back, or this node first asked to join.
    read_ms: Option<u64>,
    /// The same of those that did not show the preparation under way.
    prepared_after_ms: u64,
    acting: Option<Acting>,
    /// The last incarnation under which this node acted and no longer may.
    spent: Option<Incarnation>,
    /// The preparation that is waited for, and since when.
    waiting: Option<(Preparation, u64)>,
}

impl Tenure {
    pub fn new(me: NodeId, boot: BootId, lease_ms: u64) -> Self {
        Tenure {
            me,
            boot,
            lease_ms,
            revision: 0,
            prepared: None,
            activated: Preparation::default(),
            read_ms: None,
            prepared_after_ms: 0,
            acting: None,
            spent: None,
            waiting: None,
        }
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Takes in a committed view; `read_at_ms` is there when it was read linearizably: when that
    /// read was sent. An older view than one seen before changes nothing.
    pub fn observe(&mut self, view: &View, read_at_ms: Option<u64>) -> Vec<Step> {
        let mut steps = Vec::new();
        if view.revision() < self.revision {
            return steps;
        }
        self.revision = view.revision();
        let prepared = view.next().map(|next| next.prepared);
        if prepared != self.prepared {
            self.prepared = prepared;
            self.prepared_after_ms = self.read_ms.unwrap_or(0);
        }
        self.read_ms = self.read_ms.max(read_at_ms);
        self.activated = view.activated();
        self.follow_epoch(view, &mut steps);
        self.follow_phase(view, &mut steps);
        if let (Some(read_at_ms), Some(acting)) = (read_at_ms, &mut self.acting) {
            let until_ms = read_at_ms + acting.lease_ms;
            if until_ms > acting.lease_until_ms {
                acting.lease_until_ms = until_ms;
                steps.push(Step::Extend);
            }
        }
        steps
    }

    fn follow_epoch(&mut self, view: &View, steps: &mut Vec<Step>) {
        let mine = view.member(self.me).filter(|m| m.boot == self.boot);
        if let Some(acting) = &mut self.acting {
            let stays = mine.map(|m| m.incarnation) == Some(acting.stay.incarnation);
            match view.epoch().0.checked_sub(acting.epoch.0) {
                Some(0) => {}
                Some(1) if stays => {
                    let roster = Roster::new(view.epoch(), view.members());
                    let before = std::mem::replace(&mut acting.roster, roster);
                    acting.epoch = view.epoch();
                    acting.next = None;
                    // The new view was not read yet.
                    acting.lease_until_ms = 0;
                    steps.push(Step::Adopt(before));
                }
                _ => self.discard(steps),
            }
        }
        if let (None, Some(member)) = (&self.acting, mine)
            && self.spent != Some(member.incarnation)
        {
            self.acting = Some(Acting {
                epoch: view.epoch(),
                stay: Stay {
                    node: self.me,
                    incarnation: member.incarnation,
                },
                roster: Roster::new(view.epoch(), view.members()),
                lease_ms: member.lease_ms,
                lease_until_ms: 0,
                next: None,
            });
            steps.push(Step::Begin);
        }
    }

    fn follow_phase(&mut self, view: &View, steps: &mut Vec<Step>) {
        let Some(acting) = &mut self.acting else {
            return;
        };
        match view.next() {
            None => {
                if acting.next.take().is_some() {
                    steps.push(Step::Freeze);
                }
            }
            Some(next) => {
                let stays = next.members.get(&self.me).map(|m| m.incarnation)
                    == Some(acting.stay.incarnation);
                let known = acting.next.as_ref().map(|(prepared, _)| *prepared);
                if !stays {
                    self.discard(steps);
                } else if known != Some(next.prepared) {
                    let members = next.members.iter().map(|(node, member)| (*node, *member));
                    let epoch = Epoch(view.epoch().0 + 1);
                    acting.next = Some((next.prepared, Roster::new(epoch, members)));
                    steps.push(Step::Freeze);
                }
            }
        }
    }

    fn discard(&mut self, steps: &mut Vec<Step>) {
        if let Some(acting) = self.acting.take() {
            self.spent = Some(acting.stay.incarnation);
            steps.push(Step::Discard);
        }
    }

    /// The preparation under way, as far as this node has seen.
    pub fn prepared(&self) -> Option<Preparation> {
        self.prepared
    }

    /// A moment by this node's clock before which nobody knew of the preparation under way, if that has this
    /// node's present run as a member: what others say about it was sent later.
    pub fn prepared_after_ms(&self) -> u64 {
        self.prepared_after_ms
    }

    /// The preparation that became the active view.
    pub fn activated(&self) -> Preparation {
        self.activated
    }

    /// What this node acts on, with or without a lease.
    pub fn acting(&self) -> Option<&Acting> {
        self.acting.as_ref()
    }

    /// What this node acts on while its lease lasts.
    pub fn held(&self, now_ms: u64) -> Option<&Acting> {
        self.acting
            .as_ref()
            .filter(|acting| now_ms < acting.lease_until_ms)
    }

    /// What is left of the lease.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        let until = self.acting.as_ref().map_or(0, |a| a.lease_until_ms);
        until.saturating_sub(now_ms)
    }

    /// What this node has to say about the view, as far as it is due. `handed_over` says whether
    /// everything that moves away from here has arrived where it goes, or is given up.
    pub fn commands(
        &mut self,
        view: &View,
        (now_ms, leads, handed_over): (u64, bool, bool),
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        match view.latest().get(&self.me) {
            Some(member) if member.boot == self.boot => {
                let spent = self.spent == Some(member.incarnation);
                if spent && self.acting.is_none() {
                    commands.push(Command::Leave {
                        node: self.me,
                        incarnation: member.incarnation,
                    });
                }
            }
            _ => {
                self.read_ms.get_or_insert(now_ms);
                commands.push(Command::Join {
                    node: self.me,
                    boot: self.boot,
                    lease_ms: self.lease_ms,
                });
            }
        }
        self.freeze_and_activate(view, (now_ms, leads, handed_over), &mut commands);
        commands
    }

    fn freeze_and_activate(
        &mut self,
        view: &View,
        (now_ms, leads, handed_over): (u64, bool, bool),
        commands: &mut Vec<Command>,
    ) {
        let Some(next) = view.next() else {
            self.waiting = None;
            return;
        };
        if let Some(member) = view.member(self.me)
            && !next.has_frozen(self.me)
        {
            // Whoever runs has the data directory's lock: any other run of this node is over.
            let is_former = member.boot != self.boot;
            let rests = match &self.acting {
                None => self.revision >= view.revision(),
                Some(acting) => acting.next.as_ref().map(|(p, _)| *p) == Some(next.prepared),
            };
            if is_former || (rests && handed_over) {
                commands.push(Command::Frozen {
                    prepared: next.prepared,
                    node: self.me,
                    incarnation: member.incarnation,
                });
            }
        }
        let since_ms = match self.waiting {
            Some((prepared, since_ms)) if prepared == next.prepared => since_ms,
            _ => now_ms,
        };
        self.waiting = Some((next.prepared, since_ms));
        let longest = view.members().map(|(_, member)| member.lease_ms).max();
        let wait_ms = outlasting(longest.unwrap_or(0)) + u64::from(!leads) * FOLLOWER_WAITS_MS;
        if now_ms.saturating_sub(since_ms) > wait_ms {
            commands.push(Command::Activate {
                prepared: next.prepared,
            });
        }
    }
}

/// How long to wait, by this node's clock, until a lease of another node is over that began before.
pub fn outlasting(lease_ms: u64) -> u64 {
    lease_ms + lease_ms * 2 * DRIFT_PERCENT / 100 + MARGIN_MS
}

impl Acting {
    /// Whether the key has another home in the view that is prepared: then nothing is decided about
    /// it here, nor served from memory.
    pub fn moves(&self, key: &str) -> bool {
        match &self.next {
            None => false,
            Some((_, roster)) => roster.home(key) != self.roster.home(key),
        }
    }

    /// Which preparation this node has frozen for.
    pub fn preparation(&self) -> Option<Preparation> {
        self.next.as_ref().map(|(prepared, _)| *prepared)
    }

    /// The view that is prepared.
    pub fn next(&self) -> Option<&Roster> {
        self.next.as_ref().map(|(_, roster)| roster)
    }

    /// Whether this node is home to the key, and may decide about it as far as the view goes.
    pub fn is_home(&self, key: &str) -> bool {
        self.roster.home(key) == Some(self.stay) && !self.moves(key)
    }
}
