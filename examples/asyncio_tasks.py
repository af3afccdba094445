"""Tasks at once in one session: each has its own state, result and spans, whatever the others do."""

import asyncio

import otel_sessions

CITIES = {"Lisbon": 186, "Oslo": 240, "Porto": None}


@otel_sessions.tool
async def search_flights(city: str) -> int:
    """Find the price of a flight; nobody flies to Porto today."""
    await asyncio.sleep(0.3)
    price = CITIES[city]
    if price is None:
        raise LookupError(f"no flight to {city}")
    return price


async def ask(question: str) -> str:
    """Ask a model; what goes in and comes out is recorded because it is passed here."""
    with otel_sessions.model_call("gpt-5", provider="openai", messages=question) as call:
        await asyncio.sleep(0.2)  # await client.chat.completions.create(...)
        answer = "Take the cheapest."
        call.record(messages=answer, input_tokens=12, output_tokens=4, finish_reasons=["stop"])
    return answer


async def main() -> None:
    """Search three cities at once; one task fails, the session goes on and ends well."""
    async with otel_sessions.session("compare flights", title="Where to in May?") as session:

        @session.task("search city")
        async def search(city: str) -> int:
            with otel_sessions.agent("searcher"):
                return await search_flights(city)

        found = await asyncio.gather(*map(search, CITIES), return_exceptions=True)
        prices = [price for price in found if isinstance(price, int)]
        print(await ask(f"Which of {prices} shall I take?"))


otel_sessions.init(service_name="travel")
asyncio.run(main())
