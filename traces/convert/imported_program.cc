#include "traces/convert/imported_program.h"

#include "absl/strings/str_cat.h"
#include "traces/format.h"

namespace heaptape {

bool ImportedProgram::Ready() {
  if (!status_.ok()) return false;
  if (writer_ == nullptr) {
    auto created = create_(info_);
    if (!created.ok()) {
      status_ = created.status();
      return false;
    }
    writer_ = *created;
  }
  status_ = writer_->status();
  return status_.ok();
}

std::uint16_t ImportedProgram::Thread(std::int64_t thread) {
  if (has_last_ && thread == last_thread_) return last_number_;
  const auto [known, is_new] = threads_.try_emplace(thread, 0);
  if (is_new) {
    if (free_threads_.empty() && thread_count_ > 0xffff) {
      status_ = absl::DataLossError("more than 65,536 threads at once");
      threads_.erase(known);
      return 0;
    }
    if (free_threads_.empty()) {
      known->second = static_cast<std::uint16_t>(thread_count_++);
    } else {
      known->second = free_threads_.back();
      free_threads_.pop_back();
    }
    // The first one is alive from the beginning.
    if (known->second != 0 || ended_first_) writer_->Append({Op::kThreadStart, 0, known->second, 0, 0});
  }
  has_last_ = true;
  last_thread_ = thread;
  return last_number_ = known->second;
}

void ImportedProgram::Start(Op op, std::uint64_t address, std::uint64_t size, std::uint64_t alignment,
                            std::uint16_t thread) {
  const auto [at, is_new] = slots_.try_emplace(address, 0);
  if (!is_new) {
    // It was freed meanwhile, and that was not recorded.
    ++missing_frees_;
    writer_->Free(at->second, thread);
  }
  if (slots_.size() > format::kMaxLiveObjects) {
    status_ = absl::DataLossError(absl::StrCat("more than ", format::kMaxLiveObjects, " live objects"));
    return;
  }
  Takes(0);
  if (status_.ok()) at->second = writer_->Allocate(op, size, alignment, thread);
}

void ImportedProgram::Takes(std::uint64_t bytes) {
  importer_bytes_ += bytes;
  const std::uint64_t needed = slots_.size() * kImportBytes + importer_bytes_;
  if (needed <= memory_limit_bytes_ || !status_.ok()) return;
  status_ = OverMemoryLimit(name_, static_cast<double>(needed), absl::StrCat(slots_.size(), " live objects"), memory_limit_bytes_);
}

void ImportedProgram::Allocate(Op op, std::uint64_t address, std::uint64_t size, std::uint64_t alignment,
                               std::int64_t thread) {
  if (!Ready()) return;
  const std::uint16_t number = Thread(thread);
  if (!status_.ok()) return;
  if (address == 0) writer_->Failure(op, ~0u, size, alignment, number);
  else Start(op, address, size, alignment, number);
}

void ImportedProgram::Free(std::uint64_t address, std::int64_t thread) {
  if (address == 0 || !Ready()) return;
  const auto found = slots_.find(address);
  if (found == slots_.end()) {
    ++unknown_frees_;
    return;
  }
  const std::uint16_t number = Thread(thread);
  if (!status_.ok()) return;
  writer_->Free(found->second, number);
  slots_.erase(found);
}

void ImportedProgram::Reallocate(std::uint64_t address, std::uint64_t new_address, std::uint64_t size,
                                 std::int64_t thread) {
  if (!Ready()) return;
  const std::uint16_t number = Thread(thread);
  if (!status_.ok()) return;
  const auto found = address == 0 ? slots_.end() : slots_.find(address);
  if (found == slots_.end()) {
    if (address != 0) ++unknown_reallocs_;
    if (new_address != 0) Start(Op::kRealloc, new_address, size, 0, number);
    else if (address == 0) writer_->Failure(Op::kRealloc, ~0u, size, 0, number);
    return;
  }
  const std::uint32_t slot = found->second;
  if (new_address == 0 && size != 0) {
    writer_->Failure(Op::kRealloc, slot, size, 0, number);
    return;
  }
  if (new_address == 0) {
    writer_->Free(slot, number);
    slots_.erase(found);
    return;
  }
  if (new_address != address) {
    slots_.erase(found);
    const auto [at, is_new] = slots_.try_emplace(new_address, slot);
    if (!is_new) {
      ++missing_frees_;
      writer_->Free(at->second, number);
      at->second = slot;
    }
  }
  writer_->Reallocate(Op::kRealloc, slot, size, number);
}

void ImportedProgram::EndThread(std::int64_t thread) {
  if (!Ready()) return;
  const auto known = threads_.find(thread);
  if (known == threads_.end()) return;  // it never called
  writer_->Append({Op::kThreadEnd, 0, known->second, 0, 0});
  ended_first_ |= known->second == 0;
  free_threads_.push_back(known->second);
  threads_.erase(known);
  has_last_ = false;
}

void ImportedProgram::Time(std::uint64_t time_ns) {
  if (Ready()) writer_->Time(time_ns);
}

absl::Status ImportedProgram::Finish() {
  if (Ready()) writer_->AddUnmatchedFrees({.unknown = unknown_frees_ + unknown_reallocs_, .missed = missing_frees_});
  return status_;
}

std::vector<std::string> ImportedProgram::notes() const {
  std::vector<std::string> notes;
  if (unknown_frees_ != 0)
    notes.push_back(absl::StrCat(unknown_frees_, " frees of objects that were never allocated were left out"));
  if (unknown_reallocs_ != 0)
    notes.push_back(absl::StrCat(unknown_reallocs_, " reallocs of objects that were never allocated became allocations"));
  if (missing_frees_ != 0)
    notes.push_back(absl::StrCat(missing_frees_, " objects were freed where their address was given out again"));
  return notes;
}

}  // namespace heaptape
