//! One simulated site: its validator, or two of them if it equivocates; its disk, its clock, its timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::genesis::Genesis;
use crate::cluster::keys::SecretKey;
use crate::cluster::ordering::signatures::Signatures;
use crate::cluster::ordering::{Effect, Ordering, TimerId, Validator};
use crate::cluster::state::State;
use crate::sim::behaviours::Behaviour;
use crate::sim::clock::Clock;
use crate::sim::disk::Disk;
use crate::sim::forge::Forge;

/// A site.
pub struct SimSite {
    /// Its number.
    pub id: SiteId,
    /// Its validator's node.
    pub node: NodeId,
    /// Its clock.
    pub clock: Clock,
    /// Its faces: one, or more if it is several sites with one key.
    pub faces: Vec<Face>,
    /// What stands between its validators and its links; none if it is honest.
    pub behaviour: Option<Box<dyn Behaviour>>,
    /// Its key, and what can be signed with it.
    pub forge: Forge,
    /// It crashes when this many more effects have been carried out.
    pub crash_after: Option<u32>,
    /// Signatures found good, remembered together with all sites: the same bytes under the same key hold everywhere.
    signatures: Arc<Signatures>,
    /// Whether its disk is yet to be lost.
    pub loses_disk: bool,
}

/// A validator and what it stands on.
pub struct Face {
    /// None while it is down.
    pub validator: Option<Validator>,
    /// Its disk.
    pub disk: Disk,
    /// Timers that run, and the number of their setting: one that was set anew or stopped runs out unheard.
    pub timers: BTreeMap<TimerId, u64>,
    /// It is busy with its disk until then, and what arrives waits.
    pub busy_until_us: u64,
}

impl SimSite {
    /// A site with as many faces as its behaviour wants, each a new validator.
    pub fn new(
        genesis: &Genesis,
        index: usize,
        key: SecretKey,
        clock: Clock,
        behaviour: Option<Box<dyn Behaviour>>,
        signatures: &Arc<Signatures>,
    ) -> SimSite {
        let (id, node) = (SiteId(index as u8), NodeId(index as u16));
        let faces = behaviour.as_ref().map_or(1, |behaviour| behaviour.faces());
        let faces = (0..faces)
            .map(|_| Face {
                validator: Some(shared(Validator::new(genesis, id, node, key.clone()), signatures)),
                disk: Disk::default(),
                timers: BTreeMap::new(),
                busy_until_us: 0,
            })
            .collect();
        let forge = Forge { network: genesis.network(), site: id, key };
        SimSite {
            id,
            node,
            clock,
            faces,
            behaviour,
            forge,
            crash_after: None,
            signatures: signatures.clone(),
            loses_disk: false,
        }
    }

    /// Brings a face back from its disk, and starts it.
    pub fn recover(&mut self, genesis: &Genesis, face: usize) -> Result<Vec<Effect>, String> {
        let place = &mut self.faces[face];
        let records = place.disk.recover()?;
        let (snapshot, blocks) = (place.disk.snapshot().cloned(), place.disk.blocks().to_vec());
        let key = self.forge.key.clone();
        let validator = Validator::recover(genesis, self.id, self.node, key, snapshot, blocks, records)
            .map_err(|error| error.to_string())?;
        Ok(place.validator.insert(shared(validator, &self.signatures)).start())
    }

    /// Whether it does what it should.
    pub fn is_honest(&self) -> bool {
        self.behaviour.is_none()
    }

    /// What its first face has agreed to; none while it is down.
    pub fn state(&self) -> Option<&State> {
        self.faces[0].validator.as_ref().map(|validator| validator.state())
    }

    /// The face that hears a site, given the face that site speaks with.
    pub fn face_for(&self, from: usize, from_faces: usize, from_face: usize) -> usize {
        if self.faces.len() > 1 && from_faces > 1 {
            return from_face;
        }
        self.behaviour.as_ref().map_or(0, |behaviour| behaviour.face_for(from)).min(self.faces.len() - 1)
    }
}

fn shared(mut validator: Validator, signatures: &Arc<Signatures>) -> Validator {
    validator.share_signatures(signatures);
    validator
}
