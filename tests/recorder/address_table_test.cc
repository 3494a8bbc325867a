#include "recorder/address_table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <unordered_map>
#include <vector>

namespace heaptape {
namespace {

// What a plain map holds of the same calls.
using Model = std::unordered_map<std::uint64_t, std::uint32_t>;

void ExpectAlike(const AddressTable& table, const Model& model) {
  ASSERT_EQ(table.size(), model.size());
  for (const auto& [address, slot] : model) {
    const AddressTable::Entry* const entry = table.Find(address);
    ASSERT_NE(entry, nullptr) << std::hex << address;
    EXPECT_EQ(entry->slot, slot);
  }
}

// Allocates what is not alive and frees what is, at random.
void Live(AddressTable& table, Model& model, const std::vector<std::uint64_t>& addresses, unsigned calls, std::mt19937_64& random) {
  for (unsigned call = 0; call < calls; ++call) {
    const std::uint64_t address = addresses[random() % addresses.size()];
    const AddressTable::Entry* const found = table.Find(address);
    ASSERT_EQ(found != nullptr, model.contains(address));
    if (found != nullptr) {
      table.Erase(found);
      model.erase(address);
      EXPECT_EQ(table.Find(address), nullptr);
    } else {
      const auto [entry, is_new] = table.Insert(address);
      ASSERT_TRUE(is_new);
      entry->slot = call;
      model[address] = call;
    }
  }
}

TEST(AddressTable, HoldsWhatAMapHolds) {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> addresses;
  for (std::uint64_t i = 1; i <= 4000; ++i) addresses.push_back(0x7f0000000000 + i * 16);
  for (int i = 0; i < 4000; ++i) addresses.push_back(random() | 1);
  AddressTable table;
  Model model;
  Live(table, model, addresses, 200'000, random);
  ExpectAlike(table, model);
}

// Addresses that all belong at one of the last places of the table, so that each search runs over its end.
TEST(AddressTable, WhatBelongsAtItsEndGoesOnAtItsBegin) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;
  std::uint64_t inverse = 1;
  for (int i = 0; i < 6; ++i) inverse *= 2 - kGolden * inverse;  // Newton's iteration: of an odd number, modulo 2^64
  ASSERT_EQ(kGolden * inverse, 1u);
  std::mt19937_64 random(2);
  std::vector<std::uint64_t> addresses;
  for (std::uint64_t i = 0; i < 300; ++i) addresses.push_back((~std::uint64_t{0} - i % 3 * (std::uint64_t{1} << 54) - i) * inverse);
  AddressTable table;
  Model model;
  Live(table, model, addresses, 20'000, random);
  ExpectAlike(table, model);
}

TEST(AddressTable, AnAddressThatIsThereIsFoundInstead) {
  AddressTable table;
  table.Insert(4096).first->slot = 7;
  const auto [entry, is_new] = table.Insert(4096);
  EXPECT_FALSE(is_new);
  EXPECT_EQ(entry->slot, 7u);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(table.Find(0), nullptr);
}

// Beyond the size from which it lies in huge pages, and back.
TEST(AddressTable, GrowsToAMillion) {
  AddressTable table;
  for (std::uint32_t i = 1; i <= 1'000'000; ++i) table.Insert(i * std::uint64_t{48}).first->slot = i;
  std::uint64_t sum = 0;
  table.ForEach([&sum](AddressTable::Entry& entry) {
    EXPECT_EQ(entry.address, entry.slot * std::uint64_t{48});
    sum += entry.slot++;
  });
  EXPECT_EQ(sum, std::uint64_t{1'000'000} * 1'000'001 / 2);
  for (std::uint32_t i = 1; i <= 1'000'000; ++i) {
    const AddressTable::Entry* const entry = table.Find(i * std::uint64_t{48});
    ASSERT_NE(entry, nullptr);
    ASSERT_EQ(entry->slot, i + 1);
    table.Erase(entry);
  }
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace heaptape
