//! The queue in memory: a few plain collections that do what the scripts should.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mufakat::protocol::queue::{DedupScope, Message, Receipt};

/// So many failures make a message dead.
pub const MAX_DELIVERIES: u64 = 3;

#[derive(Clone, Debug, Default)]
pub struct Kept {
    priority: u64,
    id: Option<String>,
    group: Option<String>,
    expires: Option<u64>,
    /// Whether its expiry is still looked for.
    ttl: bool,
    due: u64,
    token: String,
    deliveries: u64,
    counted: u64,
}

/// What a topic is, said in another way.
#[derive(Debug, Default)]
pub struct Model {
    pub now: u64,
    pub seq: u64,
    /// How many messages may be alive, and whether the oldest die for more.
    pub limit: Option<(u64, bool)>,
    pub messages: BTreeMap<u64, Kept>,
    pub ready: [VecDeque<u64>; 10],
    pub delayed: BTreeSet<(u64, String)>,
    pub leased: BTreeSet<(u64, String)>,
    pub dead: BTreeSet<(u64, String)>,
    /// The first is the head, which stands in one of the places above.
    pub groups: BTreeMap<String, VecDeque<u64>>,
    /// Until when an id is known; -1: until its message is done.
    pub ids: BTreeMap<String, (u64, i64)>,
    pub acked: BTreeSet<(u64, String)>,
}

fn without(set: &mut BTreeSet<(u64, String)>, seq: u64) -> bool {
    let member = seq.to_string();
    let before = set.len();
    set.retain(|(_, each)| *each != member);
    set.len() < before
}

impl Model {
    fn is_in(set: &BTreeSet<(u64, String)>, seq: u64) -> bool {
        set.iter().any(|(_, member)| *member == seq.to_string())
    }

    /// All messages of a request, or none.
    pub fn push_request(&mut self, messages: &[Message]) -> Vec<Option<(u64, bool)>> {
        let mut new = BTreeSet::new();
        let mut count = 0;
        for message in messages {
            let is_known = message.id.as_ref().is_some_and(|id| {
                let is_known = self.known(id).is_some();
                is_known || !new.insert(id.clone())
            });
            count += u64::from(!is_known);
        }
        match self.limit.is_none() || self.fits(count) {
            true => messages.iter().map(|m| Some(self.push(m))).collect(),
            false => vec![None; messages.len()],
        }
    }

    fn fits(&mut self, more: u64) -> bool {
        let Some((limit, overflows)) = self.limit else {
            return true;
        };
        let alive = (self.messages.len() - self.dead.len()) as u64;
        let places = (alive + more).saturating_sub(limit);
        if more == 0 || places == 0 {
            return true;
        }
        let ready = self.ready.iter().flatten().copied();
        let victims: Vec<u64> = ready.take(places as usize).collect();
        if !overflows || more > limit || (victims.len() as u64) < places {
            return false;
        }
        for victim in &victims {
            for list in &mut self.ready {
                list.retain(|each| each != victim);
            }
        }
        for victim in victims {
            self.bury(victim);
        }
        true
    }

    /// The message that an id stands for. One that has expired is over, and its id with it if that is good as long
    /// as the message.
    fn known(&mut self, id: &str) -> Option<u64> {
        let (seq, till) = *self.ids.get(id)?;
        if till == -1 {
            let expires = self.messages[&seq].expires;
            let is_over = expires.is_some_and(|expires| expires <= self.now);
            if is_over && !Model::is_in(&self.leased, seq) && !Model::is_in(&self.dead, seq) {
                self.end(seq);
                return None;
            }
        }
        (till == -1 || till > self.now as i64).then_some(seq)
    }

    fn push(&mut self, message: &Message) -> (u64, bool) {
        if let Some(seq) = message.id.as_ref().and_then(|id| self.known(id)) {
            return (seq, true);
        }
        self.seq += 1;
        let seq = self.seq;
        if let Some(id) = &message.id {
            let till = match message.dedup_scope {
                DedupScope::UntilAcked => -1,
                DedupScope::Window => (self.now + message.dedup_ms.unwrap()) as i64,
            };
            self.ids.insert(id.clone(), (seq, till));
        }
        let kept = Kept {
            priority: message.priority,
            id: message.id.clone(),
            group: message.group.clone(),
            expires: message.ttl_ms.map(|ttl| self.now + ttl),
            ttl: message.ttl_ms.is_some(),
            due: message.delay_ms.map_or(0, |delay| self.now + delay),
            ..Kept::default()
        };
        self.messages.insert(seq, kept);
        self.enter(seq);
        (seq, false)
    }

    /// Puts a message behind its group, or where it can be handed out.
    fn enter(&mut self, seq: u64) {
        let group = self.messages[&seq].group.clone();
        if let Some(group) = group {
            let members = self.groups.entry(group).or_default();
            members.push_back(seq);
            if members.len() > 1 {
                return;
            }
        }
        self.place(seq);
    }

    fn place(&mut self, seq: u64) {
        let kept = &self.messages[&seq];
        if kept.due > self.now {
            self.delayed.insert((kept.due, seq.to_string()));
        } else {
            self.ready[kept.priority as usize].push_back(seq);
        }
    }

    /// A message leaves its group; if it was the head, the next one takes its place.
    fn leave_group(&mut self, seq: u64) {
        let Some(group) = self.messages[&seq].group.clone() else {
            return;
        };
        let Some(members) = self.groups.get_mut(&group) else {
            return;
        };
        let was_head = members.front() == Some(&seq);
        members.retain(|each| *each != seq);
        let next = members.front().copied();
        if next.is_none() {
            self.groups.remove(&group);
        }
        if let (true, Some(next)) = (was_head, next) {
            self.place(next);
        }
    }

    fn end(&mut self, seq: u64) {
        without(&mut self.delayed, seq);
        without(&mut self.leased, seq);
        let was_dead = without(&mut self.dead, seq);
        for list in &mut self.ready {
            list.retain(|each| *each != seq);
        }
        if !was_dead {
            self.leave_group(seq);
        }
        let kept = self.messages.remove(&seq).expect("it was there");
        if let Some(id) = kept.id
            && let Some((of, till)) = self.ids.get(&id).copied()
            && of == seq
            && (till == -1 || till <= self.now as i64)
        {
            self.ids.remove(&id);
        }
    }

    fn bury(&mut self, seq: u64) {
        self.dead.insert((self.now, seq.to_string()));
        self.leave_group(seq);
        let kept = self.messages.get_mut(&seq).unwrap();
        kept.token.clear();
        kept.ttl = false;
    }

    fn holds(&self, receipt: &Receipt) -> bool {
        let kept = self.messages.get(&receipt.seq);
        kept.is_some_and(|kept| kept.token == receipt.token)
    }

    pub fn ack(&mut self, receipt: &Receipt) -> u64 {
        let key = (receipt.seq, receipt.token.clone());
        if self.holds(receipt) {
            self.end(receipt.seq);
            self.acked.insert(key);
            1
        } else if self.acked.contains(&key) {
            2
        } else {
            0
        }
    }

    /// Takes a message out of where it is; whether it was in flight.
    fn take_out(&mut self, seq: u64) -> bool {
        without(&mut self.delayed, seq);
        for list in &mut self.ready {
            list.retain(|each| *each != seq);
        }
        without(&mut self.leased, seq)
    }

    pub fn nack(&mut self, receipt: &Receipt, mode: char, delay: Option<u64>) -> u64 {
        if !self.holds(receipt) {
            return 0;
        }
        let was_in_flight = self.take_out(receipt.seq);
        match mode {
            'd' => self.bury(receipt.seq),
            'u' => self.give_back(receipt.seq, false, None),
            _ => {
                self.messages.get_mut(&receipt.seq).unwrap().token.clear();
                self.give_back(receipt.seq, was_in_flight, delay);
            }
        }
        1
    }

    fn give_back(&mut self, seq: u64, counts: bool, delay: Option<u64>) {
        let now = self.now;
        let kept = self.messages.get_mut(&seq).unwrap();
        kept.counted += u64::from(counts);
        if kept.expires.is_some_and(|expires| expires <= now) {
            self.end(seq);
        } else if counts && kept.counted >= MAX_DELIVERIES {
            self.bury(seq);
        } else if let Some(delay) = delay.filter(|delay| *delay > 0) {
            self.delayed.insert((now + delay, seq.to_string()));
        } else {
            let priority = kept.priority as usize;
            self.ready[priority].push_front(seq);
        }
    }

    pub fn extend(&mut self, receipt: &Receipt, visibility: u64) -> u64 {
        if !self.holds(receipt) {
            return 0;
        }
        self.take_out(receipt.seq);
        let deadline = self.now + visibility;
        self.leased.insert((deadline, receipt.seq.to_string()));
        deadline
    }

    pub fn sweep(&mut self) {
        let now = self.now;
        let due = |set: &BTreeSet<(u64, String)>| -> Vec<u64> {
            let due = set.iter().take_while(|(at, _)| *at <= now);
            due.map(|(_, member)| member.parse().unwrap()).collect()
        };
        for seq in due(&self.delayed) {
            without(&mut self.delayed, seq);
            self.ready[self.messages[&seq].priority as usize].push_back(seq);
        }
        let mut over = due(&self.leased);
        over.sort();
        for seq in &over {
            without(&mut self.leased, *seq);
        }
        for seq in over.into_iter().rev() {
            self.give_back(seq, true, None);
        }
        let ends = self.messages.iter().filter(|(_, kept)| kept.ttl);
        let mut ends: Vec<(u64, String)> = ends
            .map(|(seq, kept)| (kept.expires.unwrap(), seq.to_string()))
            .collect();
        ends.sort();
        for (expires, member) in ends {
            let seq = member.parse().unwrap();
            if expires <= now {
                match Model::is_in(&self.leased, seq) {
                    true => self.messages.get_mut(&seq).unwrap().ttl = false,
                    false => self.end(seq),
                }
            }
        }
    }

    pub fn pop(&mut self, max: u64, visibility: u64, token: &str) -> Vec<(u64, u64)> {
        let mut popped = Vec::new();
        for priority in (0..10).rev() {
            while (popped.len() as u64) < max
                && let Some(seq) = self.ready[priority].pop_front()
            {
                let kept = self.messages.get_mut(&seq).unwrap();
                kept.deliveries += 1;
                kept.token = token.to_owned();
                self.leased.insert((self.now + visibility, seq.to_string()));
                popped.push((seq, kept.deliveries));
            }
        }
        popped
    }

    pub fn cancel(&mut self, id: &str) -> u64 {
        let Some((seq, _)) = self.ids.get(id).copied() else {
            return 0;
        };
        let in_the_way = Model::is_in(&self.leased, seq) || Model::is_in(&self.dead, seq);
        if !self.messages.contains_key(&seq) || in_the_way {
            return 0;
        }
        self.end(seq);
        self.ids.remove(id);
        1
    }

    pub fn redrive(&mut self) -> u64 {
        let dead = std::mem::take(&mut self.dead).into_iter();
        let mut dead: Vec<(u64, u64)> = dead
            .map(|(at, member)| (at, member.parse().unwrap()))
            .collect();
        // Those of one instant by their number, 2 before 10.
        dead.sort();
        for &(_, seq) in &dead {
            let kept = self.messages.get_mut(&seq).unwrap();
            (kept.due, kept.expires) = (0, None);
            (kept.deliveries, kept.counted) = (0, 0);
            self.enter(seq);
        }
        dead.len() as u64
    }

    /// Ready (with those that are due, and those behind their group), delayed, in flight, dead.
    pub fn counts(&self) -> [u64; 4] {
        let later =
            |set: &BTreeSet<(u64, String)>| set.iter().filter(|(at, _)| *at > self.now).count();
        let elsewhere = [later(&self.delayed), later(&self.leased), self.dead.len()];
        let ready = self.messages.len() - elsewhere.iter().sum::<usize>();
        [ready, elsewhere[0], elsewhere[1], elsewhere[2]].map(|count| count as u64)
    }
}
