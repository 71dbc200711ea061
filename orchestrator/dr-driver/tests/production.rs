//! What a drill must stay away from, and what could not be heard of it.

mod common;

use common::*;
use std::net::IpAddr;
use tde2hsm_dr_driver::drill::{RecordError, hsm_addresses, instance_profiles};
use tde2hsm_dr_driver::store;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn h44_an_answer_about_production_that_could_not_be_had_is_said() {
    let memory = Memory::new();
    let all = hsm_addresses(&memory, &config(), &instance(0)).await.unwrap();
    assert_eq!((all.known.contains(&address("10.0.1.5")), all.unheard.len()), (true, 0), "{all:?}");
    // The source region is gone, and nothing was ever written down.
    memory.world().away.insert(source());
    let nothing = hsm_addresses(&memory, &config(), &instance(0)).await.unwrap();
    assert!(nothing.known.is_empty());
    assert_eq!(nothing.unheard.len(), 2, "{nothing:?}");
    assert!(nothing.unheard[0].contains("cloudhsmv2:DescribeClusters") && nothing.unheard[1].contains("no address"));
    // What the records know serves, and that it may not be all is said.
    let put = |body: &str| {
        let mut world = memory.world();
        let at = world.now;
        world.objects.insert(store::CLUSTER.to_owned(), (body.as_bytes().to_vec(), 0, at));
    };
    put(r#"{"v":1,"cluster":"x","addresses":["10.0.1.7","hsm.example"]}"#);
    let recorded = hsm_addresses(&memory, &config(), &instance(0)).await.unwrap();
    assert!(recorded.known.contains(&address("10.0.1.7")));
    assert!(recorded.unheard.iter().any(|why| why.contains("hsm.example")), "{recorded:?}");
    put("{");
    let broken = hsm_addresses(&memory, &config(), &instance(0)).await.unwrap();
    assert!(broken.unheard.iter().any(|why| why.contains(store::CLUSTER)), "{broken:?}");
    // Without the records nothing is known at all: no drill is made of that.
    memory.world().records_away = true;
    assert!(matches!(hsm_addresses(&memory, &config(), &instance(0)).await, Err(RecordError::Call(_))));
    assert!(matches!(instance_profiles(&memory).await, Err(RecordError::Call(_))));
}

#[tokio::test]
async fn h44_the_profiles_of_production_are_those_of_the_copies_and_an_unreadable_record_is_said() {
    let memory = Memory::new();
    memory.ticks(&config(), 4).await;
    let all = instance_profiles(&memory).await.unwrap();
    assert_eq!((all.known.iter().map(String::as_str).collect::<Vec<_>>(), all.unheard.len()), (vec!["oracle"], 0));
    let key = format!("copies/{}.json", snapshot_id(1));
    memory.world().objects.insert(key.clone(), (b"{".to_vec(), 1_000_000, START));
    let some = instance_profiles(&memory).await.unwrap();
    assert!(some.unheard.iter().any(|why| why.contains(&key)), "{some:?}");
}
