//! Tasks instead of threads, here on tokio; any executor will do, and threads and tasks can share a subscription.
//!
//! ```text
//! cargo run --example async_tokio
//! ```

use std::time::Duration;

use ringmq::{Broker, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let pages = broker.topic::<String>("pages")?;

    // One task handles up to 8 messages at a time, until the topic is closed.
    let fetch = pages.subscribe("fetch")?;
    let fetching = tokio::spawn(async move {
        fetch
            .run_async(8, |page| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                println!("fetched {} at attempt {}", **page, page.attempt());
            })
            .await
    });

    // Another receives by hand. A receive may lose a race or be cancelled: no message is lost by that.
    let count = pages.subscribe("count")?.auto_ack();
    let counting = tokio::spawn(async move {
        let mut pages = 0;
        let mut subscriber = count.subscriber();
        loop {
            tokio::select! {
                page = subscriber.recv_async() => match page {
                    Ok(_) => pages += 1,
                    Err(_) => return pages,
                },
                () = tokio::time::sleep(Duration::from_millis(5)) => println!("{pages} pages so far"),
            }
        }
    });

    for n in 1..=20 {
        pages.publish_async(format!("page {n}")).await?;
    }
    pages.close();
    fetching.await.expect("no panic")?;
    let counted = counting.await.expect("no panic");
    println!("counted {counted} pages");
    assert_eq!(counted, 20);
    Ok(())
}
