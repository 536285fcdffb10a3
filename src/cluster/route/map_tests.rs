use super::*;
use crate::base::prng::Prng;
use crate::cluster::genesis::{Member, Site, SiteKind, Timing};

fn key(node: u8) -> PrivateKey {
    PrivateKey::from([node + 1; 32])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sites of one node each; the last of four is a witness.
fn genesis(sites: u8) -> Genesis {
    let member = |number: u8| Member {
        id: NodeId(number.into()),
        site: SiteId(number),
        name: format!("node-{number}"),
        address: format!("10.0.{number}.1:7800"),
        clients: (number != 3).then(|| format!("10.0.{number}.1:7700")),
        resp: (number == 0).then(|| "cache.example:6379".to_string()),
        key: hexadecimal(key(number).public_key().as_bytes()),
        certificate: String::new(),
        voter: true,
    };
    let site = |number: u8| Site {
        id: SiteId(number),
        name: format!("site-{number}"),
        kind: if number == 3 { SiteKind::Witness } else { SiteKind::Region },
        validator: NodeId(number.into()),
    };
    Genesis {
        name: "test".into(),
        nonce: "1".into(),
        operator: String::new(),
        authority: String::new(),
        timing: Timing::default(),
        sites: (0..sites).map(site).collect(),
        members: (0..sites).map(member).collect(),
    }
}

fn map() -> RegionMap {
    RegionMap::of(&State::new(&genesis(4)), 1_000_000)
}

fn signed_by(map: &RegionMap, sites: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = sites.iter().map(|site| (SiteId(*site), key(*site))).collect();
    SignedMap::new(map, &keys).unwrap().encode().unwrap()
}

#[test]
fn a_map_shows_regions_and_not_witnesses_and_reads_back() {
    let map = map();
    let sites: Vec<u8> = map.regions.iter().map(|region| region.site.0).collect();
    assert_eq!(sites, [0, 1, 2]);
    assert_eq!(map.regions[0].nodes[0].resp.as_deref(), Some("cache.example:6379"));
    let bytes = map.encode().unwrap();
    assert_eq!(RegionMap::decode(&bytes).unwrap(), map);
    let signed = signed_by(&map, &[2, 0]);
    assert_eq!(SignedMap::decode(&signed).unwrap().encode().unwrap(), signed);
}

#[test]
fn one_honest_signature_more_than_may_lie_is_enough_and_fewer_are_not() {
    let authorities = Authorities::of(&genesis(4)).unwrap();
    assert_eq!(authorities.needed(), 2);
    let verify = |bytes: &[u8]| authorities.verify(bytes, 999_999, None);
    assert_eq!(verify(&signed_by(&map(), &[0, 3])).unwrap(), map());
    assert_eq!(verify(&signed_by(&map(), &[1])), Err(MapRefused::TooFewSignatures { have: 1, needed: 2 }));
    assert_eq!(verify(&signed_by(&map(), &[])), Err(MapRefused::TooFewSignatures { have: 0, needed: 2 }));
    // Unknown sites count for nothing, also if their signatures hold.
    assert_eq!(verify(&signed_by(&map(), &[1, 7, 8, 9])), Err(MapRefused::TooFewSignatures { have: 1, needed: 2 }));
    // One liar signs for everybody.
    let lie = map().encode().unwrap();
    let signatures = (0..4).map(|site| (SiteId(site), SignedMap::sign(&lie, &key(1)))).collect();
    let forged = SignedMap { map: lie, signatures }.encode().unwrap();
    assert_eq!(verify(&forged), Err(MapRefused::TooFewSignatures { have: 1, needed: 2 }));
    // A liar who adds rubbish to what others have signed prevents nothing.
    let mut mixed = SignedMap::decode(&signed_by(&map(), &[0, 1, 2])).unwrap();
    mixed.signatures[1].1 = [9; 64];
    assert_eq!(verify(&mixed.encode().unwrap()).unwrap(), map());
    // Seven sites bear two liars: three signatures.
    let seven = Authorities::of(&genesis(7)).unwrap();
    let map = RegionMap::of(&State::new(&genesis(7)), 1_000_000);
    assert!(seven.verify(&signed_by(&map, &[0, 1]), 0, None).is_err());
    assert!(seven.verify(&signed_by(&map, &[0, 1, 6]), 0, None).is_ok());
}

#[test]
fn a_signature_of_something_else_is_none() {
    let authorities = Authorities::of(&genesis(4)).unwrap();
    let mut signed = SignedMap::decode(&signed_by(&map(), &[0, 1])).unwrap();
    // The bare bytes, without what keeps maps apart from votes and commands.
    signed.signatures[0].1 = key(0).sign(&signed.map).to_bytes();
    let refused = authorities.verify(&signed.encode().unwrap(), 0, None);
    assert_eq!(refused, Err(MapRefused::TooFewSignatures { have: 1, needed: 2 }));
}

#[test]
fn maps_of_others_expired_ones_and_played_back_ones_are_refused() {
    let authorities = Authorities::of(&genesis(4)).unwrap();
    let at = |height, expires_ms| RegionMap { height, expires_ms, ..map() };
    let verify = |map: &RegionMap, now_ms, seen: Option<&RegionMap>| {
        authorities.verify(&signed_by(map, &[0, 1]), now_ms, seen).map(|map| map.height)
    };
    assert_eq!(verify(&at(7, 1_000), 999, None), Ok(7));
    assert_eq!(verify(&at(7, 1_000), 1_000, None), Err(MapRefused::Expired { since_ms: 0 }));
    assert_eq!(verify(&at(7, 1_000), 5_000, None), Err(MapRefused::Expired { since_ms: 4_000 }));
    let seen = at(7, 1_000);
    assert_eq!(verify(&at(6, 9_000), 0, Some(&seen)), Err(MapRefused::Stale { height: 6, seen: 7 }));
    assert_eq!(verify(&at(7, 999), 0, Some(&seen)), Err(MapRefused::Stale { height: 7, seen: 7 }));
    assert_eq!(verify(&at(7, 1_000), 0, Some(&seen)), Ok(7), "the same again");
    assert_eq!(verify(&at(8, 500), 0, Some(&seen)), Ok(8));
    let other = RegionMap { network: NetworkId([1; 32]), ..map() };
    assert_eq!(verify(&other, 0, None), Err(MapRefused::OtherNetwork(NetworkId([1; 32]))));
}

#[test]
fn what_has_no_single_encoding_is_no_map() {
    let refused = |change: fn(&mut RegionMap)| {
        let mut map = map();
        change(&mut map);
        matches!(map.encode(), Err(MapRefused::Malformed(_) | MapRefused::TooLarge))
    };
    assert!(refused(|map| map.regions.swap(0, 1)), "not rising");
    assert!(refused(|map| map.regions[1].site = SiteId(0)), "twice");
    assert!(refused(|map| map.regions[0].nodes.clear()), "without nodes");
    assert!(refused(|map| map.regions[0].nodes[0].native = Some("nowhere".into())));
    assert!(refused(|map| map.regions[0].nodes[0].native = Some("a:0".into())));
    assert!(refused(|map| map.regions[0].nodes[0].native = Some("a b:1".into())));
    assert!(refused(|map| map.regions[0].nodes[0].native = Some(format!("{}:1", "a".repeat(254)))));
    assert!(refused(|map| map.regions[1].nodes[0].native = None), "no address at all");
    assert!(refused(|map| map.regions[0].nodes = vec![map.regions[0].nodes[0].clone(); 2]));
    assert!(refused(|map| map.regions = vec![map.regions[0].clone(); 300]));
    let mut longer = signed_by(&map(), &[0, 1]);
    longer.push(0);
    assert_eq!(SignedMap::decode(&longer), Err(MapRefused::Malformed("something follows its end")));
    assert_eq!(SignedMap::decode(&vec![0; limits::ROUTE_MAP_BYTES_MAX + 1]), Err(MapRefused::TooLarge));
}

#[test]
fn hostile_bytes_never_panic_and_what_decodes_encodes_to_the_same() {
    let authorities = Authorities::of(&genesis(4)).unwrap();
    let good = signed_by(&map(), &[0, 1, 2]);
    let mut prng = Prng::new(9);
    let mut believed = 0;
    for round in 0..100_000u64 {
        let mut bytes =
            if round % 4 == 0 { (0..prng.below(200)).map(|_| prng.next_u64() as u8).collect() } else { good.clone() };
        for _ in 0..=prng.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = prng.below(bytes.len() as u64) as usize;
            match prng.below(4) {
                0 => bytes[at] ^= 1 << prng.below(8),
                1 => bytes[at] = prng.next_u64() as u8,
                2 => bytes.truncate(at),
                _ => bytes.insert(at, prng.next_u64() as u8),
            }
        }
        if let Ok(signed) = SignedMap::decode(&bytes) {
            assert_eq!(signed.encode().unwrap(), bytes);
            assert_eq!(RegionMap::decode(&signed.map).unwrap().encode().unwrap(), signed.map);
            // Signatures are a hundred times dearer than all else: one map in eight.
            if round % 8 == 1
                && let Ok(map) = authorities.verify(&bytes, 0, None)
            {
                assert_eq!(map, self::map(), "a map nobody signed");
                believed += 1;
            }
        }
    }
    assert!(believed > 0, "no change ever hit a signature alone");
    for cut in 0..good.len() {
        assert!(SignedMap::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn authorities_that_are_not_different_people_are_refused() {
    let mut twins = genesis(4);
    twins.members[1].key = hexadecimal(key(0).public_key().as_bytes());
    assert!(Authorities::of(&twins).unwrap_err().contains("of another site"));
    let mut nobody = genesis(4);
    nobody.members.remove(2);
    assert!(Authorities::of(&nobody).unwrap_err().contains("site-2"));
    let mut nonsense = genesis(4);
    nonsense.members[0].key = "ä".repeat(32);
    assert!(Authorities::of(&nonsense).unwrap_err().contains("no ed25519 key"));
    let text = toml::to_string(&genesis(4)).unwrap();
    assert_eq!(Authorities::read(&text).unwrap().needed(), 2);
    assert!(Authorities::read("x = 1").is_err());
}
