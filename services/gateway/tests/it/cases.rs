//! Cases: chains of evidence.

use chopmark_domain::tenant::Scope;
use serde_json::{Value, json};

use crate::{
    client::Req,
    world::{World, plain},
};

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_grows_link_by_link() {
    let world = World::start().await;
    let body = json!({ "title": "Tenancy dispute", "external_id": "2026-0419" });
    let opened = world.call(Req::post("/v1/cases", "case").json(&body)).await.expect(202);
    let path = format!("/v1/cases/{}", id(&opened));
    assert_eq!(world.get(&path).await.expect(200)["state"], "accepted");
    world.commit().await;
    let view = world.get(&path).await.expect(200);
    assert_eq!(
        (&view["title"], &view["external_id"], &view["items"]),
        (&body["title"], &body["external_id"], &json!([]))
    );
    // Opening it again is the same case.
    let again = world.call(Req::post("/v1/cases", "case").json(&body)).await.expect(201);
    assert_eq!(again["id"], opened["id"]);

    let mut evidence = Vec::new();
    for at in 0..5 {
        evidence.push(world.committed_evidence(&format!("e{at}"), &plain()).await);
    }
    for (at, evidence) in evidence.iter().enumerate() {
        let req = Req::post(&format!("{path}/evidence"), &format!("a{at}")).json(&json!({ "evidence_id": evidence }));
        let appended = world.call(req).await.expect(202);
        assert_eq!(appended["case_id"], opened["id"]);
        world.commit().await;
        let operation = world.get(appended["operation"]["href"].as_str().unwrap()).await.expect(200);
        assert_eq!(operation["resource"], json!({ "type": "case", "id": opened["id"], "href": path }));
    }
    let first = world.get(&format!("{path}?limit=3")).await.expect(200);
    let rest =
        world.get(&format!("{path}?limit=3&cursor={}", first["next_cursor"].as_str().unwrap())).await.expect(200);
    assert!(rest.get("next_cursor").is_none());
    let items: Vec<Value> = [&first, &rest].iter().flat_map(|page| page["items"].as_array().unwrap().clone()).collect();
    let mut previous = view["entry"]["id"].clone();
    for (at, item) in items.iter().enumerate() {
        assert_eq!((&item["position"], &item["evidence_id"]), (&json!(at + 1), &json!(evidence[at])));
        assert_eq!(item["previous"], previous);
        previous = item["entry_id"].clone();
    }
    assert_eq!(items.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_yet_is_refused_and_leaves_the_key_free() {
    let world = World::start().await;
    let case = id(&world.call(Req::post("/v1/cases", "case").json(&json!({}))).await.expect(202));
    let evidence = id(&world.call(world.evidence("e")).await.expect(202));
    let append = Req::post(&format!("/v1/cases/{case}/evidence"), "append").json(&json!({ "evidence_id": evidence }));
    let res = world.call(append.clone()).await;
    assert_eq!(res.expect(409)["code"], "predecessor_not_committed");
    assert_eq!((res.json()["retryable"].as_bool(), res.header("retry-after")), (Some(true), Some("1")));
    assert_eq!(world.published(), 2);
    world.commit().await;
    // The same key, now for another request too: the refusal used nothing up.
    world.call(append).await.expect(202);
    // Messages of a case stay in order: they share its order key.
    let messages = world.queue.messages.lock();
    assert_eq!(messages[0].order_key, messages[2].order_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_belong_to_their_tenant() {
    let world = World::start().await;
    let case = id(&world.call(Req::post("/v1/cases", "case").json(&json!({}))).await.expect(202));
    let mine = world.committed_evidence("e", &plain()).await;
    let other = world.add_key("ten_two", &[Scope::Read, Scope::Write], |_| ());
    let res = world.send(Req::get(&format!("/v1/cases/{case}")).bearer(&other)).await;
    assert_eq!(res.expect(404)["code"], "case_not_found");
    let append = Req::post(&format!("/v1/cases/{case}/evidence"), "a").json(&json!({ "evidence_id": mine }));
    assert_eq!(world.send(append.bearer(&other)).await.expect(404)["code"], "case_not_found");
}
