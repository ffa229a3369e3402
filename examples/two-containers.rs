//! Two containers on a bridge, one of which publishes a port: `cargo run --example
//! two-containers`, as root. Everything it makes is gone when it ends.

use netcore::{Engine, Netns, Result, bridge};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let engine = Engine::open()?;
    let web = bridge::Network::new("example")?.subnet("10.20.0.0/24")?.masquerade();
    let (front, back) = (Netns::create("example-front")?, Netns::create("example-back")?);

    let attached = engine.attach(&web, front.attachment("example-front")?.publish(8080, 80)).await?;
    println!("front: {attached}");
    println!("back:  {}", engine.attach(&web, back.attachment("example-back")?).await?);

    for container in ["example-front", "example-back"] {
        engine.check(&web, container).await?;
        println!("{container}: everything is in place");
    }

    engine.detach(&web, "example-front").await?;
    engine.detach(&web, "example-back").await?;
    front.delete()?;
    back.delete()
}
