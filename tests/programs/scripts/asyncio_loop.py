"""asyncio: an environment's steps and a learner in one loop, which must not be held up."""

import asyncio

from tensorboardX import SummaryWriter


async def act(writer, number):
    for step in range(50):
        await asyncio.sleep(0.005)
        writer.add_scalar(f"actor{number}/reward", number * step, step)


async def learn(writer):
    for step in range(50):
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        if step % 10 == 0:
            await asyncio.to_thread(writer.flush)
        await asyncio.sleep(0.005)


async def main():
    writer = SummaryWriter("runs/async")
    await asyncio.gather(learn(writer), *(act(writer, number) for number in range(4)))
    writer.close()


asyncio.run(main())
