use super::*;
use crate::testing::Lcg;

fn map_of(placements: &[(&str, Placement)]) -> MapBody {
    let mut body = MapBody { version: 3, ..MapBody::default() };
    for (place, (name, placement)) in placements.iter().enumerate() {
        let table = place as u32 + 1;
        let kind = placement.kind();
        body.tables.push(MapTable {
            id: table,
            name: (*name).into(),
            store: Store::Durable,
            placement: kind,
        });
        for (start, end) in placement.ranges().expect("good placement") {
            let id = body.partitions.len() as u32 + 1;
            body.partitions.push(MapPartition { id, table, epoch: 1, shard: (id % 3) as u16, start, end });
        }
    }
    // The order on the wire means nothing.
    body.partitions.reverse();
    body
}

fn sample() -> MapBody {
    map_of(&[
        ("zebra", Placement::Hash { partitions: 7 }),
        ("ant", Placement::Range { splits: vec![b"g".to_vec(), b"p".to_vec()] }),
    ])
}

#[test]
fn every_key_has_the_one_partition_that_holds_it() {
    let map = PartitionMap::new(sample()).expect("good map");
    assert_eq!((map.version(), map.partition_count(), map.tables().len()), (MapVersion(3), 10, 2));
    let mut random = Lcg::new(1);
    for _ in 0..2000 {
        let key: Vec<u8> = (0..1 + random.below(6)).map(|_| random.next() as u8).collect();
        for table in map.tables() {
            let point =
                if table.placement == PlacementKind::Hash { hash_of(&key).to_vec() } else { key.clone() };
            let holders: Vec<_> = table.partitions().iter().filter(|p| p.holds(&point)).collect();
            assert_eq!(holders.len(), 1);
            assert_eq!(map.route(&table.name, &key), Some(holders[0].route()));
            assert_eq!(map.shard_of(holders[0].id), Some(holders[0].shard));
        }
    }
    let ant = map.table("ant").expect("there");
    for (key, place) in [("a", 0), ("fz", 0), ("g", 1), ("p", 2), ("z", 2)] {
        assert_eq!(ant.partition_of(key.as_bytes()), Some(&ant.partitions()[place]), "{key}");
    }
    assert_eq!(map.route("bee", b"a"), None);
    assert_eq!(map.partition(PartitionId(99)), None);
}

#[test]
fn a_map_comes_back_from_its_body() {
    let map = PartitionMap::new(sample()).expect("good map");
    assert_eq!(PartitionMap::new(map.to_body()), Ok(map.clone()));
    let published = PublishedMap::new(sample()).expect("good map");
    let body = MapBody::from_bytes(&published.body).expect("own bytes");
    assert_eq!(PartitionMap::new(body), Ok(map));
}

#[test]
fn hash_ranges_are_even_and_without_gaps() {
    for partitions in [1u32, 2, 3, 7, 1500, 65_536] {
        let ranges = Placement::Hash { partitions }.ranges().expect("at least one");
        assert_eq!(ranges.len(), partitions as usize);
        assert!(ranges[0].0.is_empty() && ranges[ranges.len() - 1].1.is_none());
        assert!(ranges.windows(2).all(|w| w[0].1.as_ref() == Some(&w[1].0) && w[0].0 < w[1].0));
    }
    assert_eq!(Placement::Hash { partitions: 0 }.ranges(), Err(PlacementError::NoPartitions));
}

#[test]
fn splits_must_ascend_and_fit_a_key() {
    let of = |splits: &[&[u8]]| Placement::Range { splits: splits.iter().map(|s| s.to_vec()).collect() };
    assert_eq!(of(&[]).ranges(), Ok(vec![(Vec::new(), None)]));
    assert_eq!(of(&[b""]).ranges(), Err(PlacementError::BadSplit { place: 0 }));
    assert_eq!(of(&[b"b", b"b"]).ranges(), Err(PlacementError::BadSplit { place: 1 }));
    assert_eq!(of(&[b"b", b"a"]).ranges(), Err(PlacementError::BadSplit { place: 1 }));
    assert_eq!(of(&[&[b'x'; MAX_KEY_BYTES + 1]]).ranges(), Err(PlacementError::BadSplit { place: 0 }));
    assert!(of(&[&[b'x'; MAX_KEY_BYTES]]).ranges().is_ok());
}

#[test]
fn maps_that_contradict_themselves_are_refused() {
    let spoil = |change: &dyn Fn(&mut MapBody)| {
        let mut body = sample();
        change(&mut body);
        PartitionMap::new(body).expect_err("contradiction")
    };
    let twice = |b: &mut MapBody| b.partitions[0].id = b.partitions[1].id;
    assert!(matches!(spoil(&twice), MapError::DuplicatePartition(_)));
    assert!(matches!(spoil(&|b| b.tables[0].name = "ant".into()), MapError::DuplicateTable(_)));
    assert!(matches!(spoil(&|b| b.tables[0].id = 2), MapError::DuplicateTable(_)));
    assert!(matches!(spoil(&|b| b.partitions[0].table = 9), MapError::NoTable(_)));
    assert!(matches!(spoil(&|b| b.partitions[1].end = Some(b"q".to_vec())), MapError::BadRange(_)));
    assert!(matches!(spoil(&|b| b.partitions[1].end = None), MapError::BadRange(_)));
    assert!(matches!(spoil(&|b| b.partitions[5].start = b"x".to_vec()), MapError::BadRange(_)));
}

#[test]
fn a_gap_routes_nowhere() {
    let mut body = sample();
    body.partitions.retain(|p| !(p.table == 2 && p.start == b"g"));
    let map = PartitionMap::new(body).expect("gaps are allowed");
    assert_eq!(map.route("ant", b"h"), None);
    assert!(map.route("ant", b"a").is_some() && map.route("ant", b"p").is_some());
}
