//! Repeats what it has heard, seconds or heights ago, to whoever it likes; and what sites with the same keys have
//! signed in another network, as it was and with this network's name put over it.

use arc_malachitebft_core_types::VoteType;

use crate::base::id::SiteId;
use crate::cluster::genesis::NetworkId;
use crate::cluster::ordering::context::ValueId;
use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};
use crate::sim::forge::Forge;
use crate::sim::genesis::{genesis, key_of};

/// What it has heard.
#[derive(Default)]
pub struct Replaying {
    heard: Vec<Message>,
    foreign: Option<NetworkId>,
}

/// Messages it remembers.
const HEARD_MAX: usize = 512;
/// Messages it repeats at each tick.
const REPEATED: usize = 8;

impl Behaviour for Replaying {
    fn hear(&mut self, tools: &mut Tools<'_>, _: usize, message: &Message, _: &mut Outbox) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(message.clone());
        } else {
            let at = tools.random.below(HEARD_MAX as u64) as usize;
            self.heard[at] = message.clone();
        }
    }

    fn tick(&mut self, tools: &mut Tools<'_>, outbox: &mut Outbox) {
        for _ in 0..REPEATED {
            let to = tools.random.below(tools.sites as u64) as usize;
            if !self.heard.is_empty() && tools.random.below(4) > 0 {
                let at = tools.random.below(self.heard.len() as u64) as usize;
                outbox.push((to, self.heard[at].clone()));
            } else {
                outbox.push((to, self.foreign(tools)));
            }
        }
    }
}

impl Replaying {
    /// A vote of any site, signed with its true key in a network of the same sites.
    fn foreign(&mut self, tools: &mut Tools<'_>) -> Message {
        let sites = tools.state.sites.len();
        let network = *self.foreign.get_or_insert_with(|| genesis(sites, "another").network());
        let site = tools.random.below(sites as u64) as usize;
        let forge = Forge { network, site: SiteId(site as u8), key: key_of(site) };
        let kind = if tools.random.below(2) == 0 { VoteType::Prevote } else { VoteType::Precommit };
        let vote = forge.vote(kind, tools.height, tools.round, Some(ValueId([9; 32])));
        // Under its own network's name it is refused for that, under this one's its signature does not hold.
        let under = if tools.random.below(2) == 0 { network } else { tools.forge.network };
        vote.encode(under).into()
    }
}
